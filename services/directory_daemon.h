// SPDX-License-Identifier: Apache-2.0
//
// The main program of a kind that has nothing but directories: no settings of its own, no registry,
// nothing that outlives the process.
#pragma once

#include <string>

#include "services/daemon.h"
#include "snapshotters/os/state_root.h"

namespace strata {

// `Kind` is a snapshotter with a Create that takes root, allow_volatile and anchor_dir; `name` is
// what its roots are marked with.
template <typename Kind>
int DirectoryDaemonMain(const std::string& name, int argc, char** argv) {
  const auto open = [](const DaemonConfig& config, FdStore& /*fds*/) {
    return Kind::Create({.root = config.root,
                         .allow_volatile = config.allow_volatile_root,
                         .anchor_dir = config.anchor_dir});
  };
  const auto check = [&name](const DaemonConfig& config) {
    return StateRoot::Check({.path = config.root,
                             .kind = name,
                             .allow_volatile = config.allow_volatile_root,
                             .anchor_dir = config.anchor_dir,
                             .kind_folders = {}});
  };
  return DaemonMain({.name = name,
                     .open = open,
                     .check_root = StateRoot::CheckPath,
                     .check = check,
                     .formats = CommonFormats(),
                     .settings = {},
                     .control = {}},
                    argc, argv);
}

}  // namespace strata
