// SPDX-License-Identifier: Apache-2.0
//
// The standard health service (grpc.health.v1.Health, of grpc/health/v1/health.proto): gRPC's own
// would bring the threads of its callback API. Safe from any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "services/rpc/rpc_call.h"

namespace strata {

class HealthService {
 public:
  virtual ~HealthService() = default;

  // The methods must not outlive this.
  virtual void AddTo(MethodTable* methods) = 0;

  // What is answered from now on, and told to who watches. At first it does not serve.
  virtual void SetServing(bool serving) = 0;
};

// Knows the server as a whole ("") and `services`.
std::unique_ptr<HealthService> NewHealthService(std::vector<std::string> services);

}  // namespace strata
