// SPDX-License-Identifier: Apache-2.0
//
// Prune: removes what the rules do not keep, of one worker's own snapshots (worker-parity 2.5).
// Safe from any thread and beside runs and pulls: what is held stays.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "client/worker/gc_policy.h"
#include "client/worker_snapshots.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

struct Pruned {
  std::vector<WorkerRecord> removed;  // in the order of their removal
  uint64_t bytes = 0;
  // What could not be removed, and why; the others were. The clean-up behind them has no name.
  std::vector<std::pair<std::string, Status>> failed;
};

// Rules run in their order; `on_removed` may be empty. Unavailable: the snapshotter cannot be
// asked; nothing is forgotten then.
StatusOr<Pruned> Prune(CallContext& call, WorkerSnapshots& snapshots,
                       const std::vector<GcRule>& rules,
                       const std::function<void(const WorkerRecord&)>& on_removed);

}  // namespace strata
