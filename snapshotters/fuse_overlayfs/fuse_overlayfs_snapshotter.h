// SPDX-License-Identifier: Apache-2.0
//
// The fuse-overlayfs snapshotter: layers are folders as those of overlayfs (OverlayLayers), shown
// by fuse-overlayfs, a process for each mount that clients start through mount.fuse3. Ids are
// mapped by that process: what is on disk has the ids of the container. Safe from any thread.
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

struct FuseOverlayfsOptions {
  std::string root;             // absolute
  bool allow_volatile = false;  // a root on tmpfs will do
  std::string anchor_dir;       // see StateRootOptions
  // kAuto is kOn: every client passes fuse-overlayfs its options on.
  OverlaySettings overlay;
  SyncAtCommit sync_at_commit = SyncAtCommit::kNone;
  Clock* clock = &Clock::System();  // must outlive the snapshotter
  Reaper::Options reaper;
};

class FuseOverlayfsSnapshotter final : public TreeSnapshotter {
 public:
  // Opens the root (see StateRoot::Open and OpenLmdbMetaStore for the errors) and tries whether
  // fuse-overlayfs mounts there: FailedPrecondition with the reason if not.
  static StatusOr<std::unique_ptr<FuseOverlayfsSnapshotter>> Create(
      const FuseOverlayfsOptions& options);

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
  FuseOverlayfsSnapshotter(std::unique_ptr<StateRoot> root, std::unique_ptr<MetaStore> store,
                           const FuseOverlayfsOptions& options);

  // Gives `fs` of new snapshot `id` the owner that the labels or the parent ask for.
  Status SetOwner(SnapshotId id, const NewSnapshot& wanted);

  const std::unique_ptr<StateRoot> root_;
  const std::unique_ptr<MetaStore> store_;
  SnapshotDirectories directories_;  // its threads use the store and the root
  OverlayLayers layers_;
  const bool remap_ids_;
  const SyncAtCommit sync_at_commit_;
};

}  // namespace strata
