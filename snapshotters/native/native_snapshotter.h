// SPDX-License-Identifier: Apache-2.0
//
// The native snapshotter: each snapshot is a whole tree of its own, a copy of its parent's (sharing
// blocks where the file system can), returned as one bind mount. It needs nothing from the kernel
// but bind mounts. Safe from any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "snapshotters/base/clock.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/core/tree_snapshotter.h"
#include "snapshotters/os/snapshot_directories.h"
#include "snapshotters/os/state_root.h"
#include "snapshotters/os/tree_sync.h"

namespace strata {

struct NativeOptions {
  std::string root;             // absolute
  bool allow_volatile = false;  // a root on tmpfs will do
  std::string anchor_dir;       // see StateRootOptions
  SyncAtCommit sync_at_commit = SyncAtCommit::kNone;
  Clock* clock = &Clock::System();  // must outlive the snapshotter
  Reaper::Options reaper;
};

class NativeSnapshotter final : public TreeSnapshotter {
 public:
  // Opens the root; see StateRoot::Open and OpenLmdbMetaStore for the errors.
  static StatusOr<std::unique_ptr<NativeSnapshotter>> Create(const NativeOptions& options);

  // What the sweep at the start found; waits for its end.
  const SnapshotDirectories::Swept& WaitSwept() { return directories_.WaitSwept(); }

 protected:
  StatusOr<SnapshotId> CreateDirectories(CallContext& call, const NewSnapshot& wanted) override;
  void DiscardDirectories(SnapshotId id) override;
  StatusOr<Usage> MeasureUsage(CallContext& call, SnapshotId id) override;
  StatusOr<std::vector<Mount>> BuildMounts(const SnapshotRecord& record) override;
  Status MakeDurable(CallContext& call, SnapshotId id) override;
  Status StartReclaim() override;

 private:
  NativeSnapshotter(std::unique_ptr<StateRoot> root, std::unique_ptr<MetaStore> store,
                    const NativeOptions& options);

  // Copies the parent's tree into the new directory `id`.
  Status FillFromParent(CallContext& call, SnapshotId id, SnapshotId parent);

  const SyncAtCommit sync_at_commit_;
  const std::unique_ptr<StateRoot> root_;
  const std::unique_ptr<MetaStore> store_;
  SnapshotDirectories directories_;  // last: its threads use the store and the root
};

}  // namespace strata
