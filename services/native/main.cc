// SPDX-License-Identifier: Apache-2.0
//
// strata-native: the native snapshotter as a process.
#include "services/directory_daemon.h"
#include "snapshotters/native/native_snapshotter.h"

int main(int argc, char** argv) {
  return strata::DirectoryDaemonMain<strata::NativeSnapshotter, strata::NativeOptions>("native",
                                                                                       argc, argv);
}
