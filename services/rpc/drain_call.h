// SPDX-License-Identifier: Apache-2.0
//
// A call of strata.control.v1.Control/Drain, from its first to its last message.
#pragma once

#include "services/rpc/rpc_call.h"

namespace strata {

class CallGate;
class ControlSource;
class WorkerPool;

// Answers `call`. The others must outlive all calls; `source` is asked on `pool`, which a call
// takes for moments only.
void StartDrainCall(ControlSource& source, WorkerPool& pool, CallGate& gate, StreamCall& call);

}  // namespace strata
