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
#include "snapshotters/os/snapshot_directories.h"

namespace strata {

class OverlayLayers {
 public:
  // Shapes for SnapshotDirectories, first those of this class; a kind may append its own.
  static std::vector<SpareDirectories::Shape> Shapes();

  // `directories`, made with Shapes(), must outlive this. `mount_options` are appended to overlay
  // mounts, never to binds.
  OverlayLayers(SnapshotDirectories& directories, std::vector<std::string> mount_options)
      : directories_(directories), mount_options_(std::move(mount_options)) {}

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

  // Mounts of snapshot `id` over `lower`: the directories of its parents, the immediate one first.
  [[nodiscard]] std::vector<Mount> MountsOf(SnapshotId id, Kind kind,
                                            const std::vector<std::string>& lower) const;

 private:
  SnapshotDirectories& directories_;
  const std::vector<std::string> mount_options_;
};

}  // namespace strata
