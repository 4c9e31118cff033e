// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/control_service.h"

#include <grpcpp/grpcpp.h>
#include <strata/control/v1/control.grpc.pb.h>

#include <utility>

#include "protos/codec/status_codec.h"
#include "services/control_source.h"
#include "services/rpc/call_gate.h"
#include "services/rpc/drain_call.h"
#include "services/worker_pool.h"
#include "snapshotters/base/status.h"

namespace strata {
namespace {

namespace wire = ::strata::control::v1;
using Context = grpc::CallbackServerContext;

void ToWire(ControlLayer layer, wire::Layer* out) {
  out->set_number(layer.number);
  out->set_reference(std::move(layer.reference));
  out->set_digest(std::move(layer.digest));
  out->set_reason(std::move(layer.reason));
  out->set_detail(std::move(layer.detail));
  out->set_blob_bytes(layer.blob_bytes);
  out->set_chunks(layer.chunks);
  out->set_present_chunks(layer.present_chunks);
  out->set_allocated_bytes(layer.allocated_bytes);
  out->set_presenter(std::move(layer.presenter));
  out->set_disk_full(layer.disk_full);
}

// A call that only asks. It owns itself until gRPC's OnDone.
class Question final : public grpc::ServerUnaryReactor {
 public:
  template <typename Work>
  static Question* Start(WorkerPool& pool, CallGate& gate, Work work) {
    auto* question = new Question(gate);
    question->Begin(pool, std::move(work));
    return question;
  }

  void OnDone() override {
    if (entered_) {
      gate_.Leave();
    }
    delete this;
  }

 private:
  explicit Question(CallGate& gate) : gate_(gate), entered_(gate.Enter()) {}

  template <typename Work>
  void Begin(WorkerPool& pool, Work work) {
    const bool accepted = entered_ && pool.Submit([this, work = std::move(work)] {
      work();
      Finish(grpc::Status::OK);
    });
    if (!accepted) {
      Finish(codec::ToGrpc(
          MakeStatus(StatusCode::kUnavailable,
                     "the snapshotter is stopping or has too much to do: try again")));
    }
  }

  CallGate& gate_;
  const bool entered_;
};

class CallbackControlService final : public ControlService, public wire::Control::CallbackService {
 public:
  using ControlService::Drain;

  CallbackControlService(ControlSource& source, WorkerPool& pool) : source_(source), pool_(pool) {}

  grpc::Service& service() override { return *this; }
  void Drain(std::chrono::milliseconds patience) override { (void)gate_.Drain(patience); }

  grpc::ServerUnaryReactor* ListLayers(Context* /*context*/,
                                       const wire::ListLayersRequest* /*request*/,
                                       wire::ListLayersResponse* response) override {
    return Question::Start(pool_, gate_, [this, response] {
      for (ControlLayer& layer : source_.ListLayers()) {
        ToWire(std::move(layer), response->add_layers());
      }
    });
  }

  grpc::ServerUnaryReactor* Counters(Context* /*context*/, const wire::CountersRequest* /*request*/,
                                     wire::CountersResponse* response) override {
    return Question::Start(pool_, gate_, [this, response] {
      for (ControlCounter& counter : source_.Counters()) {
        wire::Counter* out = response->add_counters();
        out->set_name(std::move(counter.name));
        out->set_value(counter.value);
      }
    });
  }

  grpc::ServerWriteReactor<wire::DrainProgress>* Drain(
      Context* context, const wire::DrainRequest* /*request*/) override {
    return StartDrainCall(source_, pool_, gate_, *context);
  }

 private:
  ControlSource& source_;
  WorkerPool& pool_;
  CallGate gate_;
};

}  // namespace

std::unique_ptr<ControlService> NewControlService(ControlSource& source, WorkerPool& pool) {
  return std::make_unique<CallbackControlService>(source, pool);
}

}  // namespace strata
