// SPDX-License-Identifier: Apache-2.0
//
// The snapshotter that "auto" stands for on this machine: overlayfs, else fuse-overlayfs, else
// native. Stateless, safe from any thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

// Whether a kind works on the root, which exists: the reason if not.
struct SnapshotterProbes {
  std::function<Status(const std::string& root)> overlayfs;
  std::function<Status(const std::string& root)> fuse_overlayfs;

  // By real mounts in the root.
  static SnapshotterProbes Real();
};

struct SnapshotterChoice {
  std::string kind;  // "overlayfs", "fuse-overlayfs" or "native"
  // Why not the ones before it; for the log, in the words of BuildKit.
  std::vector<std::string> reasons;
};

// Chooses for `root` (made, with 0700, when missing). What a root has begun with is remembered by
// its marker (StateRoot) and stays, also when something better works by now: the snapshots are
// that kind's. FailedPrecondition, with what can be done, when that kind does not work any more or
// is none of the three: another one would strand them.
StatusOr<SnapshotterChoice> ChooseSnapshotter(
    const std::string& root, const SnapshotterProbes& probes = SnapshotterProbes::Real());

// "auto snapshotter: using KIND" at info, the reasons at debug.
void LogSnapshotterChoice(const SnapshotterChoice& choice);

}  // namespace strata
