// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/control_service.h"

#include <strata/control/v1/control.pb.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "services/control_source.h"
#include "services/rpc/call_gate.h"
#include "services/rpc/drain_call.h"
#include "services/worker_pool.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"

namespace strata {
namespace {

namespace wire = ::strata::control::v1;

constexpr const char* kService = "/strata.control.v1.Control/";

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

void ToWire(ControlSnapshot snapshot, bool labels, wire::SnapshotRow* out) {
  SnapshotInfo& info = snapshot.info;
  out->set_id(snapshot.id);
  out->set_name(std::move(info.name));
  out->set_parent(std::move(info.parent));
  out->set_kind(static_cast<uint32_t>(info.kind));
  out->set_created(info.created);
  out->set_updated(info.updated);
  if (snapshot.usage.ok()) {
    out->set_size(snapshot.usage->size);
    out->set_inodes(snapshot.usage->inodes);
  } else {
    out->set_unmeasured(std::string(StatusMessage(snapshot.usage.status())));
  }
  if (labels) {
    for (const auto& [key, value] : info.labels) {
      (*out->mutable_labels())[key] = value;
    }
  }
}

void ToWire(RootFinding finding, wire::Finding* out) {
  out->set_problem(std::string(ProblemName(finding.problem)));
  out->set_id(finding.id);
  out->set_name(std::move(finding.name));
  out->set_path(std::move(finding.path));
  out->set_size(finding.bytes);
  out->set_detail(std::move(finding.detail));
  out->set_repair(std::move(finding.repair));
  out->set_repairable(finding.repairable);
  out->set_harmless(finding.harmless);
}

void ToWire(RootCheck check, wire::CheckResponse* out) {
  constexpr size_t kMostBytes = size_t{8} << 20;  // a message holds 16 MiB
  size_t bytes = 0;
  for (RootFinding& finding : check.findings) {
    bytes += finding.name.size() + finding.path.size() + finding.detail.size();
    if (bytes > kMostBytes) {
      check.truncated = true;
      break;
    }
    ToWire(std::move(finding), out->add_findings());
  }
  out->set_records(check.records);
  out->set_directories(check.directories);
  out->set_truncated(check.truncated);
}

void ToWire(RootSpace space, wire::SpaceResponse* out) {
  out->set_file_system(std::move(space.file_system));
  out->set_total_bytes(space.total_bytes);
  out->set_free_bytes(space.free_bytes);
  out->set_total_inodes(space.total_inodes);
  out->set_free_inodes(space.free_inodes);
  out->set_trash_entries(space.trash_entries);
  out->set_trash_bytes(space.trash_bytes);
  out->set_layers(space.layers);
  out->set_layer_bytes(space.layer_bytes);
  out->set_reserve_bytes(space.reserve_bytes);
  out->set_metadata_bytes(space.metadata_bytes);
}

// The calls that are being worked on, so that a stop need not wait for a long one.
class OpenCalls {
 public:
  // `call` is cancelled at once when all have been.
  void Add(CallContext& call) {
    const MutexLock lock(mutex_);
    calls_.insert(&call);
    if (are_cancelled_) {
      call.Cancel();
    }
  }

  void Remove(CallContext& call) {
    const MutexLock lock(mutex_);
    calls_.erase(&call);
  }

  void CancelAll() {
    const MutexLock lock(mutex_);
    are_cancelled_ = true;
    for (CallContext* call : calls_) {
      call->Cancel();
    }
  }

 private:
  Mutex mutex_;
  bool are_cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<CallContext*> calls_ ABSL_GUARDED_BY(mutex_);
};

class TableControlService final : public ControlService {
 public:
  TableControlService(ControlSource& source, WorkerPool& pool) : source_(source), pool_(pool) {}

  void Drain(std::chrono::milliseconds patience) override {
    open_.CancelAll();
    (void)gate_.Drain(patience);
  }

  void AddTo(MethodTable* methods) override {
    Add<wire::ListLayersRequest, wire::ListLayersResponse>(
        methods, "ListLayers",
        [this](CallContext& /*call*/, const auto& /*request*/, wire::ListLayersResponse* response) {
          for (ControlLayer& layer : source_.ListLayers()) {
            ToWire(std::move(layer), response->add_layers());
          }
          return OkStatus();
        });
    Add<wire::CountersRequest, wire::CountersResponse>(
        methods, "Counters",
        [this](CallContext& /*call*/, const auto& /*request*/, wire::CountersResponse* response) {
          for (ControlCounter& counter : source_.Counters()) {
            wire::Counter* out = response->add_counters();
            out->set_name(std::move(counter.name));
            out->set_value(counter.value);
          }
          return OkStatus();
        });
    Add<wire::DescribeRequest, wire::DescribeResponse>(
        methods, "Describe",
        [this](CallContext& /*call*/, const auto& /*request*/, wire::DescribeResponse* response) {
          ControlDescription description = source_.Describe();
          response->set_kind(std::move(description.kind));
          response->set_root(std::move(description.root));
          response->set_version(std::move(description.version));
          response->set_pid(description.pid);
          return OkStatus();
        });
    AddOfTheRoot(methods);
    methods->streams[Path("Drain")] = {
        .begin = [this](StreamCall& call, std::string_view /*request*/) {
          StartDrainCall(source_, pool_, gate_, call);
        }};
  }

 private:
  // What a method does. It may block.
  template <typename Request, typename Response>
  using Work = std::function<Status(CallContext&, const Request&, Response*)>;

  static std::string Path(const char* method) { return std::string(kService) + method; }

  void AddOfTheRoot(MethodTable* methods) {
    Add<wire::SnapshotsRequest, wire::SnapshotsResponse>(
        methods, "Snapshots",
        [this](CallContext& call, const wire::SnapshotsRequest& request,
               wire::SnapshotsResponse* response) -> Status {
          STRATA_ASSIGN_OR_RETURN(std::vector<ControlSnapshot> rows,
                                  source_.Snapshots(call, request.after()));
          for (ControlSnapshot& row : rows) {
            ToWire(std::move(row), request.labels(), response->add_rows());
          }
          return OkStatus();
        });
    Add<wire::CheckRequest, wire::CheckResponse>(methods, "Check",
                                                 [this](CallContext& call, const auto& /*request*/,
                                                        wire::CheckResponse* response) -> Status {
                                                   STRATA_ASSIGN_OR_RETURN(RootCheck check,
                                                                           source_.Check(call));
                                                   ToWire(std::move(check), response);
                                                   return OkStatus();
                                                 });
    Add<wire::SpaceRequest, wire::SpaceResponse>(methods, "Space",
                                                 [this](CallContext& call, const auto& /*request*/,
                                                        wire::SpaceResponse* response) -> Status {
                                                   STRATA_ASSIGN_OR_RETURN(RootSpace space,
                                                                           source_.Space(call));
                                                   ToWire(std::move(space), response);
                                                   return OkStatus();
                                                 });
  }

  // A call that only asks, on the pool; a stop cancels it.
  template <typename Request, typename Response>
  void Add(MethodTable* methods, const char* name, Work<Request, Response> work) {
    const auto begin = [this, work = std::move(work)](RpcCall& call, std::string_view bytes) {
      auto request = std::make_shared<Request>();
      if (const Status parsed = ParseRequest(bytes, request.get()); !parsed.ok()) {
        call.Finish(parsed);
        return;
      }
      Ask(call, [&work, request](CallContext& context) -> Answer {
        Response response;
        STRATA_RETURN_IF_ERROR(work(context, *request, &response));
        return response.SerializeAsString();
      });
    };
    methods->unary[Path(name)] = {.begin = begin, .cancellable = true};
  }

  void Ask(RpcCall& call, std::function<Answer(CallContext&)> question) {
    bool accepted = gate_.Enter();
    if (accepted) {
      open_.Add(call.context());
      accepted = pool_.Submit([this, &call, question = std::move(question)] {
        Answer answer = question(call.context());
        open_.Remove(call.context());
        call.Finish(std::move(answer));
        gate_.Leave();
      });
      if (!accepted) {
        open_.Remove(call.context());
        gate_.Leave();
      }
    }
    if (!accepted) {
      call.Finish(MakeStatus(StatusCode::kUnavailable,
                             "the snapshotter is stopping or has too much to do: try again"));
    }
  }

  ControlSource& source_;
  WorkerPool& pool_;
  CallGate gate_;
  OpenCalls open_;
};

}  // namespace

std::unique_ptr<ControlService> NewControlService(ControlSource& source, WorkerPool& pool) {
  return std::make_unique<TableControlService>(source, pool);
}

}  // namespace strata
