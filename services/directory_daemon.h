// SPDX-License-Identifier: Apache-2.0
//
// The main program of a kind that has nothing but directories: no registry, nothing that outlives
// the process.
#pragma once

#include <string>

#include "services/daemon.h"
#include "services/overlay_config.h"
#include "snapshotters/os/overlay_settings.h"
#include "snapshotters/os/state_root.h"

namespace strata {

// `Kind` is a snapshotter whose Create takes `Options`; `name` is what its roots are marked with. A
// kind of overlay layers has `overlay` among its options, and can be told what goes in there.
template <typename Kind, typename Options>
int DirectoryDaemonMain(const std::string& name, int argc, char** argv) {
  constexpr bool kIsOverlay = requires(Options options) {
    options.overlay;
  };
  OverlaySettings overlay;
  const auto open = [&](const DaemonConfig& config, FdStore& /*fds*/) {
    Options options;
    options.root = config.root;
    options.allow_volatile = config.allow_volatile_root;
    options.anchor_dir = config.anchor_dir;
    options.sync_at_commit = config.sync_at_commit;
    options.reaper.synchronous = config.synchronous_removal;
    if constexpr (kIsOverlay) {
      options.overlay = overlay;
    }
    return Kind::Create(options);
  };
  const auto check = [&name](const DaemonConfig& config) {
    return StateRoot::Check({.path = config.root,
                             .kind = name,
                             .allow_volatile = config.allow_volatile_root,
                             .anchor_dir = config.anchor_dir,
                             .kind_folders = {}});
  };
  return DaemonMain(
      {.name = name,
       .open = open,
       .check_root = StateRoot::CheckPath,
       .check = check,
       .formats = CommonFormats(),
       .settings = kIsOverlay ? OverlayConfig(&overlay, /*remap_ids=*/true) : KindSettings(),
       .control = {}},
      argc, argv);
}

}  // namespace strata
