// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/drain_call.h"

#include <strata/control/v1/control.pb.h>

#include <chrono>
#include <string>
#include <utility>

#include "services/control_source.h"
#include "services/rpc/call_gate.h"
#include "services/worker_pool.h"
#include "snapshotters/base/status.h"

namespace strata {
namespace {

namespace wire = ::strata::control::v1;

// How soon a client that went away is noticed, and the end of the daemon.
constexpr std::chrono::milliseconds kStep{250};
constexpr int kStepsOfMessage = 4;  // between two messages
constexpr int kStepsOfTry = 20;     // until what has failed is tried again

Status Stopping() {
  return MakeStatus(StatusCode::kUnavailable,
                    "the snapshotter is stopping or has too much to do: try again");
}

// One thing goes on at a time: a step on the pool, a write, or the time before the next step. It
// owns itself.
class DrainCall {
 public:
  DrainCall(ControlSource& source, WorkerPool& pool, CallGate& gate, StreamCall& call)
      : source_(source), pool_(pool), gate_(gate), call_(call), entered_(gate.Enter()) {}

  void Begin() { entered_ ? Next() : End(Stopping()); }

 private:
  void Next() {
    if (gate_.draining() || !pool_.Submit([this] { Step(); })) {
      End(Stopping());
    }
  }

  void Wait() {
    call_.Wait(kStep, [this] { Next(); });
  }

  void Written(bool ok) {
    if (!ok) {
      End(MakeStatus(StatusCode::kCancelled, "the caller has gone"));
    } else if (progress_.layers_left() == 0) {
      End(OkStatus());
    } else {
      Wait();
    }
  }

  void End(const Status& status) {
    call_.Finish(status);
    if (entered_) {
      gate_.Leave();
    }
    delete this;
  }

  void Step() {
    if (const Status status = call_.context().Check(); !status.ok()) {
      End(status);
      return;
    }
    const int step = steps_++;
    if (step % kStepsOfTry == 0) {
      source_.FetchAll();
    }
    if (step % kStepsOfMessage != 0) {
      Wait();
      return;
    }
    ControlDrain state = source_.DrainState();
    progress_.Clear();
    progress_.set_layers(state.layers);
    progress_.set_layers_left(state.layers_left);
    progress_.set_bytes_left(state.bytes_left);
    for (ControlDrain::Failed& failed : state.failed) {
      wire::FailedLayer* out = progress_.add_failed();
      out->set_number(failed.number);
      out->set_reference(std::move(failed.reference));
      out->set_detail(std::move(failed.detail));
    }
    call_.Write(progress_.SerializeAsString(), [this](bool ok) { Written(ok); });
  }

  ControlSource& source_;
  WorkerPool& pool_;
  CallGate& gate_;
  StreamCall& call_;
  const bool entered_;
  wire::DrainProgress progress_;
  int steps_ = 0;
};

}  // namespace

void StartDrainCall(ControlSource& source, WorkerPool& pool, CallGate& gate, StreamCall& call) {
  (new DrainCall(source, pool, gate, call))->Begin();
}

}  // namespace strata
