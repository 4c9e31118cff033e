// SPDX-License-Identifier: Apache-2.0
//
// A snapshotter daemon from its first to its last line, but for the snapshotter itself. The mains
// are a call of this.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "services/config.h"
#include "services/control_source.h"
#include "snapshotters/core/snapshotter.h"

namespace strata {

struct DaemonKind {
  std::string name;  // "overlayfs"
  std::function<StatusOr<std::unique_ptr<Snapshotter>>(const DaemonConfig&)> open;
  // What can be said of a root's path before anything is touched.
  std::function<Status(const std::string& root)> check_root;
  // What this kind can be told besides what all can; empty: nothing.
  KindSettings settings;
  // Whether a Prepare may wait for a registry.
  bool remote = false;
  // What the control service shows; asked once, after `open`, and used until the snapshotter ends.
  // Empty: there is no control service.
  std::function<ControlSource&()> control;
};

// Exit codes: what a service manager and a script may branch on.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;  // could not start, or lost what it needs
inline constexpr int kExitUsage = 2;    // arguments or configuration

// Serves until SIGTERM or SIGINT; then lets calls end, and deletes nothing.
int DaemonMain(const DaemonKind& kind, int argc, char** argv);

}  // namespace strata
