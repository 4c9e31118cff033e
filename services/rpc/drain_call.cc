// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/drain_call.h"

#include <grpcpp/alarm.h>

#include <chrono>
#include <string>
#include <utility>

#include "protos/codec/status_codec.h"
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

// One thing goes on at a time: a step on the pool, a write, or the alarm before the next step.
class DrainCall final : public grpc::ServerWriteReactor<wire::DrainProgress> {
 public:
  DrainCall(ControlSource& source, WorkerPool& pool, CallGate& gate,
            grpc::CallbackServerContext& context)
      : source_(source), pool_(pool), gate_(gate), context_(context), entered_(gate.Enter()) {}

  void Begin() { entered_ ? Next() : Finish(codec::ToGrpc(Stopping())); }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::CANCELLED);
    } else if (progress_.layers_left() == 0) {
      Finish(grpc::Status::OK);
    } else {
      Wait();
    }
  }

  void OnDone() override {
    if (entered_) {
      gate_.Leave();
    }
    delete this;
  }

 private:
  void Wait() {
    alarm_.Set(std::chrono::system_clock::now() + kStep, [this](bool /*ok*/) { Next(); });
  }

  void Next() {
    if (gate_.draining() || !pool_.Submit([this] { Step(); })) {
      Finish(codec::ToGrpc(Stopping()));
    }
  }

  void Step() {
    if (context_.IsCancelled()) {
      Finish(grpc::Status::CANCELLED);
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
    StartWrite(&progress_);
  }

  ControlSource& source_;
  WorkerPool& pool_;
  CallGate& gate_;
  grpc::CallbackServerContext& context_;
  const bool entered_;
  grpc::Alarm alarm_;
  wire::DrainProgress progress_;
  int steps_ = 0;
};

}  // namespace

grpc::ServerWriteReactor<wire::DrainProgress>* StartDrainCall(
    ControlSource& source, WorkerPool& pool, CallGate& gate, grpc::CallbackServerContext& context) {
  auto* call = new DrainCall(source, pool, gate, context);
  call->Begin();
  return call;
}

}  // namespace strata
