// SPDX-License-Identifier: Apache-2.0
//
// strata-overlayfs: the overlayfs snapshotter as a process.
#include "services/directory_daemon.h"
#include "snapshotters/overlayfs/overlayfs_snapshotter.h"

int main(int argc, char** argv) {
  return strata::DirectoryDaemonMain<strata::OverlayfsSnapshotter, strata::OverlayfsOptions>(
      "overlayfs", argc, argv);
}
