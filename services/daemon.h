// SPDX-License-Identifier: Apache-2.0
//
// A snapshotter daemon from its first to its last line, but for the snapshotter itself. The mains
// are a call of this.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "services/config.h"
#include "services/control_source.h"
#include "services/state_formats.h"
#include "snapshotters/base/fd_store.h"
#include "snapshotters/core/tree_snapshotter.h"

namespace strata {

struct DaemonKind {
  std::string name;  // "overlayfs"
  // The store outlives the snapshotter.
  std::function<StatusOr<std::unique_ptr<TreeSnapshotter>>(const DaemonConfig&, FdStore&)> open;
  // What can be said of a root's path before anything is touched.
  std::function<Status(const std::string& root)> check_root;
  // For --check: whether `open` could take over the root that `config` names, as far as can be told
  // without touching anything or disturbing a daemon that serves it.
  std::function<Status(const DaemonConfig&)> check;
  // What `open` leaves the root's state in, and what it reads (state_formats.h).
  std::vector<StateFormat> formats;
  // What this kind can be told besides what all can; empty: nothing.
  KindSettings settings;
  // Whether a Prepare may wait for a registry.
  bool remote = false;
  // What the control service shows of lazy layers; asked once, after `open`, and used until the
  // snapshotter ends. Empty: the kind has none.
  std::function<LayerControl&()> control;
};

// Exit codes: what a service manager and a script may branch on.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;  // could not start, or lost what it needs
inline constexpr int kExitUsage = 2;    // arguments or configuration

// Serves until SIGTERM or SIGINT; then lets calls end, and deletes nothing.
int DaemonMain(const DaemonKind& kind, int argc, char** argv);

}  // namespace strata
