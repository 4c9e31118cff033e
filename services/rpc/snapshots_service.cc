// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/snapshots_service.h"

#include <services/snapshots/v1/snapshots.pb.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "protos/codec/snapshot_codec.h"
#include "services/rpc/call_gate.h"
#include "services/worker_pool.h"
#include "snapshotters/core/snapshotter.h"

namespace strata {
namespace {

using codec::FromWire;
using codec::ToWire;
namespace wire = codec::wire;

constexpr const char* kService = "/containerd.services.snapshots.v1.Snapshots/";
// Of a Prepare that may be answered with a remote snapshot (snapshots-contract 6.2).
constexpr char kTargetLabel[] = "containerd.io/snapshot.ref";

constexpr size_t kListThreads = 4;

// What a method does. It may block.
template <typename Request>
using Work = std::function<Answer(CallContext&, const Request&)>;

Status Stopping() {
  return MakeStatus(StatusCode::kUnavailable, "the snapshotter is stopping: try again");
}

// A List: each page is read on the pool while the one before it is written, but for the first and
// what follows a short one: most lists are short, and the way to another thread and back would cost
// them more than the reading. It owns itself.
class ListRun {
 public:
  static void Start(Snapshotter& snapshotter, WorkerPool& pool, CallGate& gate, StreamCall& call,
                    std::string_view bytes) {
    auto* run = new ListRun(pool, gate, call);
    const Status status = run->entered_ ? run->Open(snapshotter, bytes) : Stopping();
    if (!status.ok()) {
      run->End(status);
      return;
    }
    run->ReadPage();
    run->Proceed();
  }

 private:
  ListRun(WorkerPool& pool, CallGate& gate, StreamCall& call)
      : pool_(pool), gate_(gate), call_(call), entered_(gate.Enter()) {}

  Status Open(Snapshotter& snapshotter, std::string_view bytes) {
    wire::ListSnapshotsRequest request;
    STRATA_RETURN_IF_ERROR(ParseRequest(bytes, &request));
    STRATA_ASSIGN_OR_RETURN(cursor_, snapshotter.List(call_.context(), {request.filters().begin(),
                                                                        request.filters().end()}));
    return OkStatus();
  }

  void Submit() {
    if (!pool_.Submit([this] { Run(); })) {
      status_ = MakeStatus(StatusCode::kUnavailable,
                           "too many calls wait for this snapshotter: try again later");
      page_.clear();
      if (Arrive()) {
        End(status_);
      }
    }
  }

  // page_ is to be written, and then there is the next one.
  void Proceed() {
    if (WriteOrEnd()) {
      was_short_ ? Run() : Submit();
    }
  }

  // Until a page has to wait for the one before it.
  void Run() {
    do {
      ReadPage();
    } while (Arrive() && WriteOrEnd());
  }

  // An empty page: the end, for which status_ has the reason.
  void ReadPage() {
    page_.clear();
    status_ = call_.context().Check();
    if (!status_.ok()) {
      return;
    }
    const StatusOr<std::vector<SnapshotInfo>> rows = cursor_->Next();
    if (!rows.ok()) {
      status_ = rows.status();
      return;
    }
    was_short_ = rows->size() < kListPageSize;
    for (const SnapshotInfo& info : *rows) {
      codec::AppendInfoField(wire::ListSnapshotsResponse::kInfoFieldNumber, info, &page_);
    }
  }

  // A page has been read, or the one before it is on its way: true for who comes last.
  bool Arrive() { return missing_.fetch_sub(1) == 1; }

  // False when the list has ended.
  bool WriteOrEnd() {
    if (gone_ || page_.empty()) {
      End(gone_ ? MakeStatus(StatusCode::kCancelled, "the caller has gone") : status_);
      return false;
    }
    missing_ = 2;
    call_.Write(std::move(page_), [this](bool ok) {
      gone_ = !ok;
      if (Arrive()) {
        Proceed();
      }
    });
    return true;
  }

  void End(const Status& status) {
    call_.Finish(status);
    if (entered_) {
      gate_.Leave();
    }
    delete this;
  }

  WorkerPool& pool_;
  CallGate& gate_;
  StreamCall& call_;
  const bool entered_;
  std::unique_ptr<SnapshotCursor> cursor_;
  // What of these has not come: the next page, and the end of the write before it. Who comes last
  // has all that follows to itself.
  std::atomic<int> missing_{0};
  std::string page_;
  Status status_;
  bool was_short_ = false;
  bool gone_ = false;
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

class TableService final : public SnapshotsService {
 public:
  explicit TableService(SnapshotsServiceTargets targets) : targets_(targets) {}

  void Drain(std::chrono::milliseconds patience) override { (void)gate_.Drain(patience); }

  void AddTo(MethodTable* methods) override {
    AddReads(methods);
    AddMutations(methods);
    methods->streams[Path("List")] = {.begin = [this](StreamCall& call, std::string_view bytes) {
      ListRun::Start(targets_.snapshotter, lists_, gate_, call, bytes);
    }};
    AddPooled<wire::UsageRequest>(
        methods, "Usage", [this](const auto& /*request*/) { return &targets_.walks; },
        [this](CallContext& call, const wire::UsageRequest& request) -> Answer {
          STRATA_ASSIGN_OR_RETURN(const strata::Usage usage,
                                  targets_.snapshotter.GetUsage(call, request.key()));
          wire::UsageResponse response;
          response.set_size(usage.size);
          response.set_inodes(usage.inodes);
          return response.SerializeAsString();
        });
  }

 private:
  template <typename Request>
  using Choose = std::function<WorkerPool*(const Request&)>;

  static std::string Path(const char* method) { return std::string(kService) + method; }

  void AddReads(MethodTable* methods) {
    AddRead<wire::MountsRequest>(methods, "Mounts",
                                 [this](CallContext& call, const wire::MountsRequest& request) {
                                   return MountsAnswer<wire::MountsResponse>(
                                       targets_.snapshotter.Mounts(call, request.key()));
                                 });
    AddRead<wire::StatSnapshotRequest>(
        methods, "Stat", [this](CallContext& call, const wire::StatSnapshotRequest& request) {
          return InfoAnswer(targets_.snapshotter.Stat(call, request.key()));
        });
    AddRead<wire::CleanupRequest>(
        methods, "Cleanup", [this](CallContext& call, const wire::CleanupRequest& /*request*/) {
          return EmptyAnswer(targets_.snapshotter.Cleanup(call));
        });
  }

  void AddMutations(MethodTable* methods) {
    AddPooled<wire::PrepareSnapshotRequest>(
        methods, "Prepare",
        [this](const wire::PrepareSnapshotRequest& request) {
          const bool may_wait =
              targets_.remote != nullptr && request.labels().contains(kTargetLabel);
          return may_wait ? targets_.remote : &targets_.mutations;
        },
        [this](CallContext& call, const wire::PrepareSnapshotRequest& request) {
          return MountsAnswer<wire::PrepareSnapshotResponse>(targets_.snapshotter.Prepare(
              call, request.key(), request.parent(), FromWire(request.labels())));
        });
    AddMutation<wire::ViewSnapshotRequest>(
        methods, "View", [this](CallContext& call, const wire::ViewSnapshotRequest& request) {
          return MountsAnswer<wire::ViewSnapshotResponse>(targets_.snapshotter.View(
              call, request.key(), request.parent(), FromWire(request.labels())));
        });
    AddMutation<wire::CommitSnapshotRequest>(
        methods, "Commit", [this](CallContext& call, const wire::CommitSnapshotRequest& request) {
          return EmptyAnswer(targets_.snapshotter.Commit(
              call, request.name(), request.key(),
              {.labels = FromWire(request.labels()), .parent = request.parent()}));
        });
    AddShortMutation<wire::RemoveSnapshotRequest>(
        methods, "Remove", [this](CallContext& call, const wire::RemoveSnapshotRequest& request) {
          return EmptyAnswer(targets_.snapshotter.Remove(call, request.key()));
        });
    AddMutation<wire::UpdateSnapshotRequest>(
        methods, "Update",
        [this](CallContext& call, const wire::UpdateSnapshotRequest& request) -> Answer {
          if (!request.has_info()) {
            return MakeStatus(StatusCode::kInvalidArgument, "update without info: expected a name");
          }
          const auto& paths = request.update_mask().paths();
          return InfoAnswer(targets_.snapshotter.Update(call, FromWire(request.info()),
                                                        {paths.begin(), paths.end()}));
        });
  }

  // Answered here and now.
  template <typename Request>
  void AddRead(MethodTable* methods, const char* name, Work<Request> work) {
    const auto begin = [this, work = std::move(work)](RpcCall& call, std::string_view bytes) {
      RunHere<Request>(call, bytes, work);
    };
    methods->unary[Path(name)] = {.begin = begin, .often = true};
  }

  // On a pool: as many as possible wait in one commit.
  template <typename Request>
  void AddPooled(MethodTable* methods, const char* name, Choose<Request> choose,
                 Work<Request> work) {
    const auto begin = [this, choose = std::move(choose), work = std::move(work)](
                           RpcCall& call, std::string_view bytes) {
      RunOnPool<Request>(call, bytes, choose, work);
    };
    methods->unary[Path(name)] = {.begin = begin, .cancellable = true};
  }
  template <typename Request>
  void AddMutation(MethodTable* methods, const char* name, Work<Request> work) {
    AddPooled<Request>(methods, name, Mutations<Request>(), std::move(work));
  }

  // One that does nothing but its transaction. When no other call is under way there is nobody to
  // share a commit with, and the way to another thread and back would cost a lone caller more than
  // the rest of the call.
  template <typename Request>
  void AddShortMutation(MethodTable* methods, const char* name, Work<Request> work) {
    const auto begin = [this, choose = Mutations<Request>(), work = std::move(work)](
                           RpcCall& call, std::string_view bytes) {
      if (!targets_.slow_removal && gate_.Idle() && call.MayBlock()) {
        RunHere<Request>(call, bytes, work);
      } else {
        RunOnPool<Request>(call, bytes, choose, work);
      }
    };
    methods->unary[Path(name)] = {.begin = begin, .cancellable = true};
  }
  template <typename Request>
  Choose<Request> Mutations() {
    return [this](const Request& /*request*/) { return &targets_.mutations; };
  }

  template <typename Request>
  void RunHere(RpcCall& call, std::string_view bytes, const Work<Request>& work) {
    if (!gate_.Enter()) {
      call.Finish(Stopping());
      return;
    }
    Request request;
    const Status parsed = ParseRequest(bytes, &request);
    call.Finish(parsed.ok() ? work(call.context(), request) : Answer(parsed));
    gate_.Leave();
  }

  // `work` stays, as the table of methods does.
  template <typename Request>
  void RunOnPool(RpcCall& call, std::string_view bytes, const Choose<Request>& choose,
                 const Work<Request>& work) {
    if (!gate_.Enter()) {
      call.Finish(Stopping());
      return;
    }
    auto request = std::make_shared<Request>();
    if (const Status parsed = ParseRequest(bytes, request.get()); !parsed.ok()) {
      call.Finish(parsed);
      gate_.Leave();
      return;
    }
    WorkerPool* const pool = choose(*request);
    const bool accepted = pool->Submit([this, &call, &work, request] {
      call.Finish(work(call.context(), *request));
      gate_.Leave();
    });
    if (!accepted) {
      call.Finish(MakeStatus(StatusCode::kUnavailable,
                             "too many calls wait for this snapshotter: try again later"));
      gate_.Leave();
    }
  }

  const SnapshotsServiceTargets targets_;
  CallGate gate_;
  WorkerPool lists_{{.threads = kListThreads}};
};

}  // namespace

std::unique_ptr<SnapshotsService> NewSnapshotsService(SnapshotsServiceTargets targets) {
  // What it would log are requests that do not parse; they are answered with a text.
  (void)google::protobuf::SetLogHandler(nullptr);
  return std::make_unique<TableService>(targets);
}

}  // namespace strata
