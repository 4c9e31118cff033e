// SPDX-License-Identifier: Apache-2.0
//
// Who has something of a root mounted, in whatever mount namespace: what containers stand on.
// Stateless, safe from any thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

// A mount that shows directories below a root.
struct MountUser {
  std::string mount_point;  // as those in its namespace see it
  uint64_t mount_namespace = 0;
  bool is_here = false;  // that is our own
  // What it shows, below the root ("snapshots/5/fs"): an overlay's upper directory first, then its
  // lower ones, the topmost first.
  std::vector<std::string> paths;
  // Processes whose root directory it is, or the process of fuse-overlayfs that serves it;
  // otherwise one that sees it. At most kMostPids.
  std::vector<pid_t> pids;

  bool operator==(const MountUser&) const = default;
};

inline constexpr size_t kMostPids = 8;

struct MountUsers {
  std::vector<MountUser> users;  // those that are somebody's root directory first
  // Some process could not be looked at, or there were more than are looked at.
  bool incomplete = false;
};

// Looks at /proc/*/mountinfo, once for each mount namespace and root directory, and at the
// arguments of fuse-overlayfs processes. `root` has no symlinks. The mounts that the snapshotter
// makes itself, below the root, are left out. Limits: options of overlays are compared as text, so
// a root of the same path in a container counts as this one; and of lower directories that a client
// gave relative to another directory nothing is known, only of the upper one beside them.
StatusOr<MountUsers> FindMountUsers(const std::string& root);

// The mounts in the text of a mountinfo file that show something below `root`. `root_device`
// ("8:1") and `root_subtree` are where the root lies by mountinfo's third and fourth field; empty:
// not known, binds are then not found. For tests; FindMountUsers uses it.
std::vector<MountUser> MountUsersIn(std::string_view mountinfo, const std::string& root,
                                    const std::string& root_device,
                                    const std::string& root_subtree);

// What is mounted below `directory` (without symlinks) in this mount namespace. What covers another
// one, or lies below it, comes behind it.
StatusOr<std::vector<std::string>> MountPointsBelow(const std::string& directory);

}  // namespace strata
