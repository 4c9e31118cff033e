// SPDX-License-Identifier: Apache-2.0
#include "client/proxy_snapshotter.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/async_unary_call.h>
#include <services/snapshots/v1/snapshots.grpc.pb.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "protos/codec/snapshot_codec.h"
#include "protos/codec/status_codec.h"

namespace strata {
namespace {

namespace wire = codec::wire;
using std::chrono::milliseconds;

// How long a cancelled call may stay in flight.
constexpr milliseconds kCancelPoll{50};

// Monotonic, because a step of the wall clock must neither shorten nor lengthen a call.
gpr_timespec After(milliseconds duration) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_millis(duration.count(), GPR_TIMESPAN));
}

gpr_timespec DeadlineOf(milliseconds timeout) {
  return timeout.count() > 0 ? After(timeout) : gpr_inf_future(GPR_CLOCK_MONOTONIC);
}

Status TimedOut(milliseconds timeout) {
  return MakeStatus(StatusCode::kDeadlineExceeded,
                    "no answer within " + std::to_string(timeout.count()) + " ms");
}

// gRPC ends the process when a header's value has other characters.
bool IsHeaderValue(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char character) { return character >= 0x20 && character < 0x7f; });
}

// A string of a message must be UTF-8; the server could not read it, and would not say why.
Status CheckText(std::string_view what, std::string_view text) {
  if (!IsValidUtf8(text)) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      std::string(what) + " " + ShowName(text) + " is not valid UTF-8");
  }
  return OkStatus();
}

Status CheckTexts(std::string_view what, const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    STRATA_RETURN_IF_ERROR(CheckText(what, text));
  }
  return OkStatus();
}

Status CheckLabels(const Labels& labels) {
  for (const auto& [key, value] : labels) {
    STRATA_RETURN_IF_ERROR(CheckText("label key", key));
    STRATA_RETURN_IF_ERROR(CheckText("label value", value));
  }
  return OkStatus();
}

std::vector<Mount> MountsFromWire(
    const google::protobuf::RepeatedPtrField<containerd::types::Mount>& mounts) {
  std::vector<Mount> out;
  out.reserve(static_cast<size_t>(mounts.size()));
  for (const containerd::types::Mount& mount : mounts) {
    out.push_back(codec::FromWire(mount));
  }
  return out;
}

// One gRPC call with at most one operation in flight, which the calling thread waits for.
class Flight {
 public:
  enum class Result { kDone, kFailed, kTimedOut };

  Flight(CallContext& call, const ProxyOptions& options) : call_(call) {
    context_.set_wait_for_ready(options.wait_for_ready);
    if (!options.containerd_namespace.empty()) {
      context_.AddMetadata("containerd-namespace", options.containerd_namespace);
    }
    CatchUp();
  }

  // By now nothing is in flight, so the queue has nothing to give.
  ~Flight() {
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  Flight(const Flight&) = delete;
  Flight& operator=(const Flight&) = delete;

  grpc::ClientContext& context() { return context_; }
  grpc::CompletionQueue& queue() { return queue_; }
  void* tag() { return this; }

  // The end of the operation that was started with tag(). When the caller has cancelled or the
  // deadline has passed, the call is cancelled, which ends the operation at once.
  Result Await(gpr_timespec deadline) {
    bool timed_out = false;
    bool hurried = false;
    for (;;) {
      void* tag = nullptr;
      bool ok = false;
      const gpr_timespec wake = hurried ? gpr_inf_future(GPR_CLOCK_MONOTONIC)
                                        : gpr_time_min(After(kCancelPoll), deadline);
      if (queue_.AsyncNext(&tag, &ok, wake) == grpc::CompletionQueue::GOT_EVENT) {
        return timed_out ? Result::kTimedOut : ok ? Result::kDone : Result::kFailed;
      }
      timed_out = gpr_time_cmp(gpr_now(GPR_CLOCK_MONOTONIC), deadline) >= 0;
      if (timed_out || call_.cancelled()) {
        context_.TryCancel();
        hurried = true;
      }
    }
  }

  // The end of an operation that waits for nobody, because the call itself has ended.
  void AwaitEnded() {
    void* tag = nullptr;
    bool ok = false;
    (void)queue_.Next(&tag, &ok);
  }

  // What the caller is told when the call ended with `status`.
  Status Outcome(const grpc::Status& status) const {
    return status.error_code() == grpc::CANCELLED && call_.cancelled() ? call_.Check()
                                                                       : codec::FromGrpc(status);
  }

 private:
  // gRPC reads its connections only while some thread waits in a queue, else every five seconds.
  // Without a look beforehand a call would be given to a connection that has long been closed, or
  // would not know that the server is back.
  void CatchUp() {
    void* tag = nullptr;
    bool ok = false;
    // A deadline of now would be rounded up to a wait of a millisecond.
    (void)queue_.AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC));  // the queue is empty
  }

  CallContext& call_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
};

// The rows of a List stream, a message at a time. Each wait is bounded by itself: how long a pass
// takes is up to whoever reads it.
class StreamCursor : public SnapshotCursor {
 public:
  StreamCursor(CallContext& call, const ProxyOptions& options)
      : flight_(call, options), timeout_(options.call_timeout) {}

  ~StreamCursor() override {
    if (reader_ != nullptr) {
      flight_.context().TryCancel();
      (void)Finish();  // cancelled, since the caller wanted no more
    }
  }

  StreamCursor(const StreamCursor&) = delete;
  StreamCursor& operator=(const StreamCursor&) = delete;

  // Sends the request and waits for the first rows, the end, or the error.
  Status Open(wire::Snapshots::Stub& stub, const wire::ListSnapshotsRequest& request) {
    const gpr_timespec deadline = DeadlineOf(timeout_);
    reader_ = stub.PrepareAsyncList(&flight_.context(), request, &flight_.queue());
    reader_->StartCall(flight_.tag());
    const Flight::Result result = flight_.Await(deadline);
    if (result != Flight::Result::kDone) {
      return End(result);
    }
    return Fill(deadline);
  }

  StatusOr<std::vector<SnapshotInfo>> Next() override {
    STRATA_RETURN_IF_ERROR(Fill(DeadlineOf(timeout_)));
    const int count = std::min(message_.info_size() - row_, static_cast<int>(kListPageSize));
    std::vector<SnapshotInfo> page;
    page.reserve(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) {
      page.push_back(codec::FromWire(message_.info(row_ + i)));
    }
    row_ += count;
    return page;
  }

 private:
  // Reads until there is a row or the stream has ended; a message may be empty.
  Status Fill(gpr_timespec deadline) {
    while (row_ == message_.info_size() && reader_ != nullptr) {
      message_.Clear();
      row_ = 0;
      reader_->Read(&message_, flight_.tag());
      const Flight::Result result = flight_.Await(deadline);
      if (result != Flight::Result::kDone) {
        message_.Clear();
        return End(result);
      }
    }
    return row_ == message_.info_size() ? end_ : OkStatus();
  }

  // Keeps the end for later calls, too.
  Status End(Flight::Result result) {
    const grpc::Status status = Finish();
    end_ = result == Flight::Result::kTimedOut ? TimedOut(timeout_) : flight_.Outcome(status);
    return end_;
  }

  // For a stream that the server has ended or we have cancelled. Does not look at the CallContext.
  grpc::Status Finish() {
    grpc::Status status;
    reader_->Finish(&status, flight_.tag());
    flight_.AwaitEnded();
    reader_.reset();
    return status;
  }

  Flight flight_;  // before the reader, which uses it
  const milliseconds timeout_;
  std::unique_ptr<grpc::ClientAsyncReader<wire::ListSnapshotsResponse>> reader_;  // null: ended
  wire::ListSnapshotsResponse message_;
  int row_ = 0;  // the first of message_ that was not given out
  Status end_;
};

class ProxySnapshotter : public Snapshotter {
 public:
  ProxySnapshotter(std::shared_ptr<grpc::Channel> channel, ProxyOptions options)
      : options_(std::move(options)), stub_(std::move(channel)) {}

  StatusOr<SnapshotInfo> Stat(CallContext& call, std::string_view name) override {
    wire::StatSnapshotRequest request;
    wire::StatSnapshotResponse response;
    STRATA_RETURN_IF_ERROR(SetKey("name", name, request));
    STRATA_RETURN_IF_ERROR(Run<&wire::Snapshots::Stub::PrepareAsyncStat>(call, request, response));
    return codec::FromWire(response.info());
  }

  StatusOr<SnapshotInfo> Update(CallContext& call, const SnapshotInfo& info,
                                const std::vector<std::string>& mask) override {
    STRATA_RETURN_IF_ERROR(CheckText("name", info.name));
    STRATA_RETURN_IF_ERROR(CheckText("parent", info.parent));
    STRATA_RETURN_IF_ERROR(CheckLabels(info.labels));
    STRATA_RETURN_IF_ERROR(CheckTexts("field path", mask));
    wire::UpdateSnapshotRequest request;
    wire::UpdateSnapshotResponse response;
    request.set_snapshotter(options_.snapshotter_name);
    codec::ToWire(info, request.mutable_info());
    request.mutable_update_mask()->mutable_paths()->Assign(mask.begin(), mask.end());
    STRATA_RETURN_IF_ERROR(
        Run<&wire::Snapshots::Stub::PrepareAsyncUpdate>(call, request, response));
    return codec::FromWire(response.info());
  }

  StatusOr<Usage> GetUsage(CallContext& call, std::string_view key) override {
    wire::UsageRequest request;
    wire::UsageResponse response;
    STRATA_RETURN_IF_ERROR(SetKey("key", key, request));
    STRATA_RETURN_IF_ERROR(Run<&wire::Snapshots::Stub::PrepareAsyncUsage>(call, request, response));
    return Usage{.size = response.size(), .inodes = response.inodes()};
  }

  StatusOr<std::vector<Mount>> Mounts(CallContext& call, std::string_view key) override {
    wire::MountsRequest request;
    wire::MountsResponse response;
    STRATA_RETURN_IF_ERROR(SetKey("key", key, request));
    STRATA_RETURN_IF_ERROR(
        Run<&wire::Snapshots::Stub::PrepareAsyncMounts>(call, request, response));
    return MountsFromWire(response.mounts());
  }

  StatusOr<std::vector<Mount>> Prepare(CallContext& call, std::string_view key,
                                       std::string_view parent, const Labels& labels) override {
    wire::PrepareSnapshotRequest request;
    wire::PrepareSnapshotResponse response;
    STRATA_RETURN_IF_ERROR(SetNew(key, parent, labels, request));
    STRATA_RETURN_IF_ERROR(
        Run<&wire::Snapshots::Stub::PrepareAsyncPrepare>(call, request, response));
    return MountsFromWire(response.mounts());
  }

  StatusOr<std::vector<Mount>> View(CallContext& call, std::string_view key,
                                    std::string_view parent, const Labels& labels) override {
    wire::ViewSnapshotRequest request;
    wire::ViewSnapshotResponse response;
    STRATA_RETURN_IF_ERROR(SetNew(key, parent, labels, request));
    STRATA_RETURN_IF_ERROR(Run<&wire::Snapshots::Stub::PrepareAsyncView>(call, request, response));
    return MountsFromWire(response.mounts());
  }

  Status Commit(CallContext& call, std::string_view name, std::string_view key,
                const CommitOptions& options) override {
    wire::CommitSnapshotRequest request;
    google::protobuf::Empty response;
    STRATA_RETURN_IF_ERROR(CheckText("name", name));
    STRATA_RETURN_IF_ERROR(SetNew(key, options.parent, options.labels, request));
    request.set_name(name.data(), name.size());
    return Run<&wire::Snapshots::Stub::PrepareAsyncCommit>(call, request, response);
  }

  Status Remove(CallContext& call, std::string_view key) override {
    wire::RemoveSnapshotRequest request;
    google::protobuf::Empty response;
    STRATA_RETURN_IF_ERROR(SetKey("key", key, request));
    return Run<&wire::Snapshots::Stub::PrepareAsyncRemove>(call, request, response);
  }

  StatusOr<std::unique_ptr<SnapshotCursor>> List(CallContext& call,
                                                 const std::vector<std::string>& filters) override {
    STRATA_RETURN_IF_ERROR(CheckCall(call));
    STRATA_RETURN_IF_ERROR(CheckTexts("filter", filters));
    wire::ListSnapshotsRequest request;
    request.set_snapshotter(options_.snapshotter_name);
    request.mutable_filters()->Assign(filters.begin(), filters.end());
    auto cursor = std::make_unique<StreamCursor>(call, options_);
    STRATA_RETURN_IF_ERROR(cursor->Open(stub_, request));
    return cursor;
  }

  Status Cleanup(CallContext& call) override {
    wire::CleanupRequest request;
    google::protobuf::Empty response;
    request.set_snapshotter(options_.snapshotter_name);
    return Run<&wire::Snapshots::Stub::PrepareAsyncCleanup>(call, request, response);
  }

 private:
  template <typename Request>
  Status SetKey(std::string_view what, std::string_view key, Request& request) const {
    STRATA_RETURN_IF_ERROR(CheckText(what, key));
    request.set_snapshotter(options_.snapshotter_name);
    request.set_key(key.data(), key.size());
    return OkStatus();
  }

  template <typename Request>
  Status SetNew(std::string_view key, std::string_view parent, const Labels& labels,
                Request& request) const {
    STRATA_RETURN_IF_ERROR(SetKey("key", key, request));
    STRATA_RETURN_IF_ERROR(CheckText("parent", parent));
    STRATA_RETURN_IF_ERROR(CheckLabels(labels));
    request.set_parent(parent.data(), parent.size());
    codec::ToWire(labels, request.mutable_labels());
    return OkStatus();
  }

  Status CheckCall(const CallContext& call) const {
    STRATA_RETURN_IF_ERROR(call.Check());
    if (!IsHeaderValue(options_.containerd_namespace)) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        "namespace " + ShowName(options_.containerd_namespace) +
                            " cannot be sent: a header holds printable ASCII");
    }
    return CheckText("snapshotter name", options_.snapshotter_name);
  }

  // One unary call. gRPC keeps the deadline by itself, whatever the server does.
  template <auto kMethod, typename Request, typename Response>
  Status Run(CallContext& call, const Request& request, Response& response) {
    STRATA_RETURN_IF_ERROR(CheckCall(call));
    Flight flight(call, options_);
    const gpr_timespec deadline = DeadlineOf(options_.call_timeout);
    flight.context().set_deadline(deadline);
    auto reader = (stub_.*kMethod)(&flight.context(), request, &flight.queue());
    grpc::Status status;
    reader->StartCall();
    reader->Finish(&response, &status, flight.tag());
    (void)flight.Await(deadline);  // `status` tells
    const bool late = gpr_time_cmp(gpr_now(GPR_CLOCK_MONOTONIC), deadline) >= 0;
    if (late && (status.error_code() == grpc::DEADLINE_EXCEEDED ||
                 (status.error_code() == grpc::CANCELLED && !call.cancelled()))) {
      return TimedOut(options_.call_timeout);
    }
    return flight.Outcome(status);
  }

  const ProxyOptions options_;
  wire::Snapshots::Stub stub_;
};

}  // namespace

std::unique_ptr<Snapshotter> NewProxySnapshotter(std::shared_ptr<grpc::Channel> channel,
                                                 ProxyOptions options) {
  return std::make_unique<ProxySnapshotter>(std::move(channel), std::move(options));
}

}  // namespace strata
