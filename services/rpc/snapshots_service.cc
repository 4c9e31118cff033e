// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/snapshots_service.h"

#include <grpcpp/grpcpp.h>
#include <services/snapshots/v1/snapshots.grpc.pb.h>

#include <atomic>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "protos/codec/snapshot_codec.h"
#include "protos/codec/status_codec.h"
#include "services/rpc/call_gate.h"
#include "services/worker_pool.h"
#include "snapshotters/core/snapshotter.h"

namespace strata {
namespace {

using codec::FromWire;
using codec::ToGrpc;
using codec::ToWire;
using grpc::ByteBuffer;
namespace wire = codec::wire;

// Of a Prepare that may be answered with a remote snapshot (snapshots-contract 6.2).
constexpr char kTargetLabel[] = "containerd.io/snapshot.ref";

// The answer of a call as bytes: the message that the client will parse.
using Answer = StatusOr<std::string>;
template <typename Request>
using Work = std::function<Answer(CallContext&, const Request&)>;

// `bytes` as gRPC wants them, without a copy.
ByteBuffer ToBuffer(std::string bytes) {
  auto* owned = new std::string(std::move(bytes));  // freed by the slice
  const grpc::Slice slice(
      owned->data(), owned->size(), [](void* data) { delete static_cast<std::string*>(data); },
      owned);
  return {&slice, 1};
}

// We parse requests ourselves: gRPC 1.51's callback API answers UNIMPLEMENTED, without a text, to
// one that it cannot parse, and a name that is not UTF-8 is such a one.
template <typename Request>
Status Parse(const ByteBuffer& bytes, Request* request) {
  grpc::Slice slice;
  if (!bytes.TrySingleSlice(&slice).ok() && !bytes.DumpToSingleSlice(&slice).ok()) {
    return MakeStatus(StatusCode::kResourceExhausted, "cannot read the request");
  }
  if (!request->ParseFromArray(slice.begin(), static_cast<int>(slice.size()))) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "malformed " + Request::descriptor()->name() +
                          ": expected protobuf whose strings are UTF-8");
  }
  return OkStatus();
}

Status Stopping() {
  return MakeStatus(StatusCode::kUnavailable, "the snapshotter is stopping: try again");
}

grpc::Status Reply(Answer answer, ByteBuffer* response) {
  if (!answer.ok()) {
    return ToGrpc(answer.status());
  }
  *response = ToBuffer(*std::move(answer));
  return grpc::Status::OK;
}

// A unary call that runs on a pool. It owns itself from Start to gRPC's OnDone.
template <typename Request>
class PooledCall final : public grpc::ServerUnaryReactor {
 public:
  static PooledCall* Start(WorkerPool& pool, CallGate& gate, const ByteBuffer& bytes,
                           ByteBuffer* response, Work<Request> work) {
    return Start([&pool](const Request& /*request*/) { return &pool; }, gate, bytes, response,
                 std::move(work));
  }
  // `choose`: the pool for a request.
  template <typename Choose>
  static PooledCall* Start(const Choose& choose, CallGate& gate, const ByteBuffer& bytes,
                           ByteBuffer* response, Work<Request> work) {
    auto* call = new PooledCall(gate, response, std::move(work));
    call->Begin(choose, bytes);
    return call;
  }

  void OnCancel() override { context_.Cancel(); }
  void OnDone() override {
    if (entered_) {
      gate_.Leave();
    }
    delete this;
  }

 private:
  PooledCall(CallGate& gate, ByteBuffer* response, Work<Request> work)
      : gate_(gate), response_(response), work_(std::move(work)) {}

  template <typename Choose>
  void Begin(const Choose& choose, const ByteBuffer& bytes) {
    entered_ = gate_.Enter();
    if (const Status status = entered_ ? Parse(bytes, &request_) : Stopping(); !status.ok()) {
      Finish(ToGrpc(status));
      return;
    }
    WorkerPool* const pool = choose(request_);
    if (!pool->Submit([this] { Finish(Reply(work_(context_, request_), response_)); })) {
      Finish(ToGrpc(MakeStatus(StatusCode::kUnavailable,
                               "too many calls wait for this snapshotter: try again later")));
    }
  }

  CallGate& gate_;
  ByteBuffer* const response_;  // gRPC's, until OnDone
  const Work<Request> work_;
  Request request_;
  CallContext context_;
  bool entered_ = false;
};

// A List: one page is read and written at a time. It owns itself until gRPC's OnDone.
class ListCall final : public grpc::ServerWriteReactor<ByteBuffer> {
 public:
  ListCall(Snapshotter& snapshotter, CallGate& gate, const ByteBuffer& bytes)
      : gate_(gate), entered_(gate.Enter()) {
    const Status status = entered_ ? Open(snapshotter, bytes) : Stopping();
    if (!status.ok()) {
      Finish(ToGrpc(status));
      return;
    }
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(ToGrpc(MakeStatus(StatusCode::kCancelled, "the caller has gone")));
      return;
    }
    WriteNext();
  }
  void OnCancel() override { context_.Cancel(); }
  void OnDone() override {
    if (entered_) {
      gate_.Leave();
    }
    delete this;
  }

 private:
  Status Open(Snapshotter& snapshotter, const ByteBuffer& bytes) {
    wire::ListSnapshotsRequest request;
    STRATA_RETURN_IF_ERROR(Parse(bytes, &request));
    STRATA_ASSIGN_OR_RETURN(
        cursor_, snapshotter.List(context_, {request.filters().begin(), request.filters().end()}));
    return OkStatus();
  }

  void WriteNext() {
    if (const Status status = context_.Check(); !status.ok()) {
      Finish(ToGrpc(status));
      return;
    }
    const StatusOr<std::vector<SnapshotInfo>> page = cursor_->Next();
    if (!page.ok() || page->empty()) {
      Finish(ToGrpc(page.status()));
      return;
    }
    std::string bytes;
    for (const SnapshotInfo& info : *page) {
      codec::AppendInfoField(wire::ListSnapshotsResponse::kInfoFieldNumber, info, &bytes);
    }
    page_ = ToBuffer(std::move(bytes));
    StartWrite(&page_);
  }

  CallGate& gate_;
  const bool entered_;
  CallContext context_;
  std::unique_ptr<SnapshotCursor> cursor_;
  ByteBuffer page_;
};

template <typename Response>
Answer MountsAnswer(const StatusOr<std::vector<Mount>>& mounts) {
  STRATA_RETURN_IF_ERROR(mounts.status());
  Response response;
  for (const Mount& mount : *mounts) {
    ToWire(mount, response.add_mounts());
  }
  return response.SerializeAsString();
}

Answer InfoAnswer(const StatusOr<SnapshotInfo>& info) {
  STRATA_RETURN_IF_ERROR(info.status());
  std::string bytes;
  codec::AppendInfoField(wire::StatSnapshotResponse::kInfoFieldNumber, *info, &bytes);
  return bytes;
}

Answer EmptyAnswer(const Status& status) {
  STRATA_RETURN_IF_ERROR(status);
  return std::string();
}

using Api = wire::Snapshots;
using RawService = Api::WithRawCallbackMethod_Prepare<
    Api::WithRawCallbackMethod_View<Api::WithRawCallbackMethod_Mounts<
        Api::WithRawCallbackMethod_Commit<Api::WithRawCallbackMethod_Remove<
            Api::WithRawCallbackMethod_Stat<Api::WithRawCallbackMethod_Update<
                Api::WithRawCallbackMethod_List<Api::WithRawCallbackMethod_Usage<
                    Api::WithRawCallbackMethod_Cleanup<Api::Service>>>>>>>>>>;

using Context = grpc::CallbackServerContext;
using Reactor = grpc::ServerUnaryReactor;

class CallbackService final : public SnapshotsService, public RawService {
 public:
  explicit CallbackService(SnapshotsServiceTargets targets) : targets_(targets) {}

  grpc::Service& service() override { return *this; }
  void Drain(std::chrono::milliseconds patience) override { (void)gate_.Drain(patience); }

  Reactor* Prepare(Context* /*context*/, const ByteBuffer* in, ByteBuffer* out) override {
    const auto choose = [this](const wire::PrepareSnapshotRequest& request) {
      const bool may_wait = targets_.remote != nullptr && request.labels().contains(kTargetLabel);
      return may_wait ? targets_.remote : &targets_.mutations;
    };
    return PooledCall<wire::PrepareSnapshotRequest>::Start(
        choose, gate_, *in, out,
        [this](CallContext& call, const wire::PrepareSnapshotRequest& request) {
          return MountsAnswer<wire::PrepareSnapshotResponse>(targets_.snapshotter.Prepare(
              call, request.key(), request.parent(), FromWire(request.labels())));
        });
  }

  Reactor* View(Context* /*context*/, const ByteBuffer* in, ByteBuffer* out) override {
    return Mutation<wire::ViewSnapshotRequest>(
        in, out, [this](CallContext& call, const wire::ViewSnapshotRequest& request) {
          return MountsAnswer<wire::ViewSnapshotResponse>(targets_.snapshotter.View(
              call, request.key(), request.parent(), FromWire(request.labels())));
        });
  }

  Reactor* Commit(Context* /*context*/, const ByteBuffer* in, ByteBuffer* out) override {
    return Mutation<wire::CommitSnapshotRequest>(
        in, out, [this](CallContext& call, const wire::CommitSnapshotRequest& request) {
          return EmptyAnswer(targets_.snapshotter.Commit(
              call, request.name(), request.key(),
              {.labels = FromWire(request.labels()), .parent = request.parent()}));
        });
  }

  Reactor* Remove(Context* context, const ByteBuffer* in, ByteBuffer* out) override {
    return ShortMutation<wire::RemoveSnapshotRequest>(
        context, in, out, [this](CallContext& call, const wire::RemoveSnapshotRequest& request) {
          return EmptyAnswer(targets_.snapshotter.Remove(call, request.key()));
        });
  }

  Reactor* Update(Context* /*context*/, const ByteBuffer* in, ByteBuffer* out) override {
    return Mutation<wire::UpdateSnapshotRequest>(
        in, out, [this](CallContext& call, const wire::UpdateSnapshotRequest& request) -> Answer {
          if (!request.has_info()) {
            return MakeStatus(StatusCode::kInvalidArgument, "update without info: expected a name");
          }
          const auto& paths = request.update_mask().paths();
          return InfoAnswer(targets_.snapshotter.Update(call, FromWire(request.info()),
                                                        {paths.begin(), paths.end()}));
        });
  }

  Reactor* Usage(Context* /*context*/, const ByteBuffer* in, ByteBuffer* out) override {
    const auto work = [this](CallContext& call, const wire::UsageRequest& request) -> Answer {
      STRATA_ASSIGN_OR_RETURN(const strata::Usage usage,
                              targets_.snapshotter.GetUsage(call, request.key()));
      wire::UsageResponse response;
      response.set_size(usage.size);
      response.set_inodes(usage.inodes);
      return response.SerializeAsString();
    };
    return PooledCall<wire::UsageRequest>::Start(targets_.walks, gate_, *in, out, work);
  }

  Reactor* Mounts(Context* context, const ByteBuffer* in, ByteBuffer* out) override {
    return Read<wire::MountsRequest>(context, in, out,
                                     [this](CallContext& call, const wire::MountsRequest& request) {
                                       return MountsAnswer<wire::MountsResponse>(
                                           targets_.snapshotter.Mounts(call, request.key()));
                                     });
  }

  Reactor* Stat(Context* context, const ByteBuffer* in, ByteBuffer* out) override {
    return Read<wire::StatSnapshotRequest>(
        context, in, out, [this](CallContext& call, const wire::StatSnapshotRequest& request) {
          return InfoAnswer(targets_.snapshotter.Stat(call, request.key()));
        });
  }

  Reactor* Cleanup(Context* context, const ByteBuffer* in, ByteBuffer* out) override {
    return Read<wire::CleanupRequest>(
        context, in, out, [this](CallContext& call, const wire::CleanupRequest& /*request*/) {
          return EmptyAnswer(targets_.snapshotter.Cleanup(call));
        });
  }

  grpc::ServerWriteReactor<ByteBuffer>* List(Context* /*context*/, const ByteBuffer* in) override {
    return new ListCall(targets_.snapshotter, gate_, *in);
  }

 private:
  template <typename Request>
  Reactor* Mutation(const ByteBuffer* in, ByteBuffer* out, Work<Request> work) {
    return PooledCall<Request>::Start(targets_.mutations, gate_, *in, out, std::move(work));
  }

  // One that does nothing but its transaction. When no other call is under way there is nobody to
  // share a commit with, and the way to another thread would cost a lone caller more than the rest
  // of the call; gRPC has another thread for what comes meanwhile.
  template <typename Request, typename Function>
  Reactor* ShortMutation(Context* context, const ByteBuffer* in, ByteBuffer* out, Function work) {
    if (targets_.slow_removal || !gate_.Idle() || here_.exchange(true)) {
      return Mutation<Request>(in, out, std::move(work));
    }
    Reactor* reactor = Read<Request>(context, in, out, std::move(work));
    here_.store(false);
    return reactor;
  }

  // Answered here and now.
  template <typename Request, typename Function>
  Reactor* Read(Context* context, const ByteBuffer* in, ByteBuffer* out, Function work) {
    Reactor* reactor = context->DefaultReactor();
    if (!gate_.Enter()) {
      reactor->Finish(ToGrpc(Stopping()));
      return reactor;
    }
    Request request;
    CallContext call;
    const Status parsed = Parse(*in, &request);
    reactor->Finish(Reply(parsed.ok() ? work(call, request) : Answer(parsed), out));
    gate_.Leave();
    return reactor;
  }

  const SnapshotsServiceTargets targets_;
  CallGate gate_;
  std::atomic<bool> here_{false};  // a mutation runs on a thread of gRPC's
};

}  // namespace

std::unique_ptr<SnapshotsService> NewSnapshotsService(SnapshotsServiceTargets targets) {
  // What it would log are requests that do not parse; they are answered with a text.
  (void)google::protobuf::SetLogHandler(nullptr);
  return std::make_unique<CallbackService>(targets);
}

}  // namespace strata
