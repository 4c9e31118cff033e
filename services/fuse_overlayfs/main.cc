// SPDX-License-Identifier: Apache-2.0
//
// strata-fuse-overlayfs: the fuse-overlayfs snapshotter as a process.
#include "services/daemon.h"
#include "snapshotters/fuse_overlayfs/fuse_overlayfs_snapshotter.h"

int main(int argc, char** argv) {
  const auto open = [](const strata::DaemonConfig& config, strata::FdStore& /*fds*/) {
    return strata::FuseOverlayfsSnapshotter::Create({.root = config.root,
                                                     .allow_volatile = config.allow_volatile_root,
                                                     .anchor_dir = config.anchor_dir});
  };
  const auto check = [](const strata::DaemonConfig& config) {
    return strata::StateRoot::Check({.path = config.root,
                                     .kind = "fuse-overlayfs",
                                     .allow_volatile = config.allow_volatile_root,
                                     .anchor_dir = config.anchor_dir,
                                     .kind_folders = {}});
  };
  return strata::DaemonMain({.name = "fuse-overlayfs",
                             .open = open,
                             .check_root = strata::StateRoot::CheckPath,
                             .check = check,
                             .formats = strata::CommonFormats(),
                             .settings = {},
                             .control = {}},
                            argc, argv);
}
