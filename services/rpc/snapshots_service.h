// SPDX-License-Identifier: Apache-2.0
//
// The gRPC side of a Snapshotter, on gRPC's callback API: calls that only read are answered on
// gRPC's own threads, the others on a pool, so that as many as possible wait in one commit; a
// Remove that is the only call runs on gRPC's thread too. Safe from any thread, as gRPC calls it.
#pragma once

#include <chrono>
#include <memory>

namespace grpc {
class Service;
}

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

  // To be registered with a server, which must not outlive this.
  virtual grpc::Service& service() = 0;

  // From now on every new call is answered Unavailable. Waits until those in flight have been
  // answered, at most `patience`.
  virtual void Drain(std::chrono::milliseconds patience) = 0;
};

// All that `targets` names must outlive the service.
std::unique_ptr<SnapshotsService> NewSnapshotsService(SnapshotsServiceTargets targets);

}  // namespace strata
