// SPDX-License-Identifier: Apache-2.0
//
// The RPC side of a ControlSource (strata.control.v1.Control).
#pragma once

#include <chrono>
#include <memory>

#include "services/rpc/rpc_call.h"

namespace strata {

class ControlSource;
class WorkerPool;

class ControlService {
 public:
  virtual ~ControlService() = default;

  // The methods must not outlive this.
  virtual void AddTo(MethodTable* methods) = 0;

  // From now on every new call is answered Unavailable. Waits until those in flight have been
  // answered, at most `patience`.
  virtual void Drain(std::chrono::milliseconds patience) = 0;
};

// `source` and `pool`, on which it is asked, must outlive the service.
std::unique_ptr<ControlService> NewControlService(ControlSource& source, WorkerPool& pool);

}  // namespace strata
