// SPDX-License-Identifier: Apache-2.0
//
// A call of strata.control.v1.Control/Drain, from its first to its last message.
#pragma once

#include <grpcpp/grpcpp.h>
#include <strata/control/v1/control.pb.h>

namespace strata {

class CallGate;
class ControlSource;
class WorkerPool;

// What the call is to be answered with; it owns itself. The others must outlive all calls; `source`
// is asked on `pool`, which a call takes for moments only.
grpc::ServerWriteReactor<strata::control::v1::DrainProgress>* StartDrainCall(
    ControlSource& source, WorkerPool& pool, CallGate& gate, grpc::CallbackServerContext& context);

}  // namespace strata
