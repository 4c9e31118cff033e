// SPDX-License-Identifier: Apache-2.0
//
// The overlayfs snapshotter: its layers are folders, shown by the kernel's overlayfs
// (OverlayLayers). Safe from any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "snapshotters/base/clock.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/core/tree_snapshotter.h"
#include "snapshotters/os/overlay_layers.h"
#include "snapshotters/os/snapshot_directories.h"
#include "snapshotters/os/state_root.h"

namespace strata {

struct OverlayfsOptions {
  std::string root;             // absolute
  bool allow_volatile = false;  // a root on tmpfs will do
  std::string anchor_dir;       // see StateRootOptions
  // kAuto is kOff: options for mapped ids are what only some clients understand.
  OverlaySettings overlay;
  SyncAtCommit sync_at_commit = SyncAtCommit::kNone;
  Clock* clock = &Clock::System();  // must outlive the snapshotter
  Reaper::Options reaper;
};

class OverlayfsSnapshotter final : public TreeSnapshotter {
 public:
  // Opens the root (see StateRoot::Open and OpenLmdbMetaStore for the errors) and tries whether the
  // kernel and the file system can do overlay there: FailedPrecondition with the reason if not.
  static StatusOr<std::unique_ptr<OverlayfsSnapshotter>> Create(const OverlayfsOptions& options);

  // What the sweep at the start found; waits for its end.
  const SnapshotDirectories::Swept& WaitSwept() { return directories_.WaitSwept(); }

 protected:
  StatusOr<SnapshotId> CreateDirectories(CallContext& call, const NewSnapshot& wanted) override;
  void DiscardDirectories(SnapshotId id) override;
  StatusOr<Usage> MeasureUsage(CallContext& call, SnapshotId id) override;
  StatusOr<std::vector<Mount>> BuildMounts(const SnapshotRecord& record) override;
  void AddToInfo(SnapshotInfo& info, SnapshotId id) override { layers_.AddTo(info, id); }
  Status MakeDurable(CallContext& call, SnapshotId id) override {
    return layers_.Sync(call, id, sync_at_commit_);
  }
  Status StartReclaim() override;

 private:
  OverlayfsSnapshotter(std::unique_ptr<StateRoot> root, std::unique_ptr<MetaStore> store,
                       const OverlayfsOptions& options, OverlaySettings settings);

  // Gives `fs` of new snapshot `id` the owner that the labels or the parent ask for.
  Status SetOwner(SnapshotId id, const NewSnapshot& wanted);

  const std::unique_ptr<StateRoot> root_;
  const std::unique_ptr<MetaStore> store_;
  SnapshotDirectories directories_;  // its threads use the store and the root
  OverlayLayers layers_;
  const SyncAtCommit sync_at_commit_;
};

}  // namespace strata
