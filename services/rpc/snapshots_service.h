// SPDX-License-Identifier: Apache-2.0
//
// The RPC side of a Snapshotter: calls that only read are answered on the thread that serves all
// calls, the others on a pool, so that as many as possible wait in one commit; a Remove that is the
// only call stays where it is, too.
#pragma once

#include <chrono>
#include <memory>

#include "services/rpc/rpc_call.h"

namespace strata {

class Snapshotter;
class WorkerPool;

struct SnapshotsServiceTargets {
  Snapshotter& snapshotter;
  WorkerPool& mutations;
  WorkerPool& walks;  // usage of actives: they may take long and must not hold up mutations
  // Prepares that may ask a registry, for the same reason; null: this kind has none.
  WorkerPool* remote = nullptr;
  // A Remove deletes files before it is answered, and must not hold up what is read meanwhile.
  bool slow_removal = false;
};

class SnapshotsService {
 public:
  virtual ~SnapshotsService() = default;

  // The methods must not outlive this.
  virtual void AddTo(MethodTable* methods) = 0;

  // From now on every new call is answered Unavailable. Waits until those in flight have been
  // answered, at most `patience`.
  virtual void Drain(std::chrono::milliseconds patience) = 0;
};

// All that `targets` names must outlive the service.
std::unique_ptr<SnapshotsService> NewSnapshotsService(SnapshotsServiceTargets targets);

}  // namespace strata
