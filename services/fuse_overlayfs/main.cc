// SPDX-License-Identifier: Apache-2.0
//
// strata-fuse-overlayfs: the fuse-overlayfs snapshotter as a process.
#include "services/directory_daemon.h"
#include "snapshotters/fuse_overlayfs/fuse_overlayfs_snapshotter.h"

int main(int argc, char** argv) {
  return strata::DirectoryDaemonMain<strata::FuseOverlayfsSnapshotter,
                                     strata::FuseOverlayfsOptions>("fuse-overlayfs", argc, argv);
}
