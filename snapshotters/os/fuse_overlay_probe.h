// SPDX-License-Identifier: Apache-2.0
//
// What this machine can do with fuse-overlayfs, tried for real. Stateless, safe from any thread.
#pragma once

#include <string>
#include <string_view>

#include "snapshotters/base/status.h"

namespace strata {

// The type of its mounts, as containerd and its fuse-overlayfs-snapshotter write it.
inline constexpr std::string_view kFuseOverlayType = "fuse3.fuse-overlayfs";

// OK when fuse-overlayfs is installed, and the helper by which clients mount (mount.fuse3), and
// when two lower layers inside `directory` mount read-only and show their files; else
// FailedPrecondition with the reason.
Status ProbeFuseOverlay(const std::string& directory);

}  // namespace strata
