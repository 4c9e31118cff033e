// SPDX-License-Identifier: Apache-2.0
//
// The snapshotter that a worker's configuration asks for (worker-parity 1.4, 3). The choice is made
// first, because the state directory is named for it; opening is second. Safe from any thread.
#pragma once

#include <memory>
#include <string>

#include "client/worker/config.h"
#include "client/worker/worker_state.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshotter.h"
#include "snapshotters/os/snapshotter_choice.h"
#include "snapshotters/registry/hosts.h"

namespace strata {

struct SnapshotterPlan {
  std::string name;   // the worker's label, and part of the state directory's name
  std::string proxy;  // the socket; "" for one of our own
};

// With a proxy the name passes as it is, and its path is looked at; "auto" becomes what works on
// `config.root`. Errors with the seed's texts: NotFound (socket), InvalidArgument (name).
StatusOr<SnapshotterPlan> PlanSnapshotter(
    const WorkerConfig& config, const SnapshotterProbes& probes = SnapshotterProbes::Real());

// Whether the plan is for layers that come when they are read.
bool IsLazy(const SnapshotterPlan& plan);

// Opens it: a proxy must answer within snapshotter_wait (Unavailable); one in this process is
// opened with its first call. `hosts` is for a lazy one.
class OpenedSnapshotter {
 public:
  virtual ~OpenedSnapshotter() = default;
  [[nodiscard]] virtual Snapshotter& snapshotter() = 0;
};
StatusOr<std::unique_ptr<OpenedSnapshotter>> OpenSnapshotter(const SnapshotterPlan& plan,
                                                             const WorkerConfig& config,
                                                             const HostsConfig& hosts,
                                                             const WorkerState& state);

}  // namespace strata
