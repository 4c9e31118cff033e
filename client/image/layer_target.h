// SPDX-License-Identifier: Apache-2.0
//
// LayerTarget: the mounts of an active snapshot as the directory that a layer is written to.
// Stateless; safe from any thread.
#pragma once

#include <string>
#include <vector>

#include "client/image/layer_apply.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

struct LayerTarget {
  UniqueFd directory;
  // overlay_upper, user_xattr, open_lower and user_namespace; open_lower has what it needs.
  ApplyOptions options;
  std::string upper;     // the folder of an overlay whose changes are in it; "": there is none
  bool mounted = false;  // `directory` is of a mount that was made for it
};

// One bind: its source. One overlay: its upper folder, without a mount. All else (fuse-overlayfs,
// several mounts) is mounted where nobody else sees it.
StatusOr<LayerTarget> OpenLayerTarget(const std::vector<Mount>& mounts);

// What was written is durable: the file system's data, and that of the folder behind a FUSE mount.
Status SyncLayerTarget(const LayerTarget& target);

// The same of a committed snapshot, by the mounts of a view of it: of each file system that it has
// directories on.
Status SyncSnapshot(const std::vector<Mount>& view);

// The value of option KEY=VALUE; "" when there is none.
std::string MountOption(const Mount& mount, std::string_view key);

}  // namespace strata
