// SPDX-License-Identifier: Apache-2.0
//
// OverlayLayers: snapshots of which each is a folder with `fs` (its own files) and, when it is
// writable, `work`; and the bind and overlay mounts of them, options exactly as containerd's own
// snapshotter gives them (snapshots-contract 4.3). Safe from any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "snapshotters/core/call_context.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/os/id_mapping.h"
#include "snapshotters/os/overlay_settings.h"
#include "snapshotters/os/snapshot_directories.h"
#include "snapshotters/os/tree_sync.h"

namespace strata {

class OverlayLayers {
 public:
  // Shapes for SnapshotDirectories, first those of this class; a kind may append its own.
  static std::vector<SpareDirectories::Shape> Shapes();

  // `directories`, made with Shapes(), must outlive this.
  OverlayLayers(SnapshotDirectories& directories, OverlaySettings settings)
      : directories_(directories), settings_(std::move(settings)) {}

  // The folder of a new snapshot, durable.
  StatusOr<SnapshotId> Take(Kind kind);

  // "<root>/snapshots/<id>/fs".
  [[nodiscard]] std::string FilesOf(SnapshotId id) const;

  // Owner of `fs` of the snapshot.
  [[nodiscard]] StatusOr<HostOwner> OwnerOf(SnapshotId id) const;
  // Gives `fs` of the new snapshot that owner, durably; our own is what it has from the beginning.
  Status SetOwner(SnapshotId id, const HostOwner& owner);

  // Bytes and inodes of `fs`; NotFound when it is not there.
  StatusOr<Usage> Measure(CallContext& call, SnapshotId id);

  // Makes the snapshot's own files durable; NotFound when they are not there.
  Status Sync(const CallContext& call, SnapshotId id, SyncAtCommit how);

  // Mounts of a snapshot over `lower`: the directories of its parents, the immediate one first.
  // InvalidArgument: mapping labels that were spoiled after they had been checked.
  [[nodiscard]] StatusOr<std::vector<Mount>> MountsOf(const SnapshotRecord& record,
                                                      const std::vector<std::string>& lower) const;

  // Adds what the settings want infos to say of the snapshot; whether they want anything.
  [[nodiscard]] bool adds_to_infos() const { return settings_.upperdir_label; }
  void AddTo(SnapshotInfo& info, SnapshotId id) const;

 private:
  SnapshotDirectories& directories_;
  const OverlaySettings settings_;
};

}  // namespace strata
