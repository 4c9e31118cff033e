// SPDX-License-Identifier: Apache-2.0
//
// The gRPC side of a ControlSource (strata.control.v1.Control). Safe from any thread, as gRPC calls
// it.
#pragma once

#include <chrono>
#include <memory>

namespace grpc {
class Service;
}

namespace strata {

class ControlSource;
class WorkerPool;

class ControlService {
 public:
  virtual ~ControlService() = default;

  // To be registered with a server, which must not outlive this.
  virtual grpc::Service& service() = 0;

  // From now on every new call is answered Unavailable. Waits until those in flight have been
  // answered, at most `patience`.
  virtual void Drain(std::chrono::milliseconds patience) = 0;
};

// `source` and `pool`, on which it is asked, must outlive the service.
std::unique_ptr<ControlService> NewControlService(ControlSource& source, WorkerPool& pool);

}  // namespace strata
