// SPDX-License-Identifier: Apache-2.0
#include <grpcpp/grpcpp.h>
#include <strata/control/v1/control.grpc.pb.h>

#include <chrono>
#include <utility>

#include "client/proxy_snapshotter.h"
#include "client/stratactl/node.h"
#include "protos/codec/status_codec.h"

namespace strata {
namespace {

namespace wire = ::strata::control::v1;

// A snapshotter that does not answer by then is as good as none.
constexpr std::chrono::seconds kPatience{30};
// What walks the disk may take long.
constexpr std::chrono::minutes kLongPatience{60};

NodeSnapshot FromWire(wire::SnapshotRow& row) {
  NodeSnapshot out;
  out.id = row.id();
  out.info.name = std::move(*row.mutable_name());
  out.info.parent = std::move(*row.mutable_parent());
  out.info.kind = static_cast<Kind>(row.kind());
  out.info.created = row.created();
  out.info.updated = row.updated();
  out.info.labels.insert(row.labels().begin(), row.labels().end());
  out.usage = {.size = row.size(), .inodes = row.inodes()};
  out.unmeasured = std::move(*row.mutable_unmeasured());
  TakeTenant(out);
  return out;
}

NodeFinding FromWire(wire::Finding& finding) {
  return {.problem = finding.problem(),
          .found = {.id = finding.id(),
                    .name = std::move(*finding.mutable_name()),
                    .path = std::move(*finding.mutable_path()),
                    .bytes = finding.size(),
                    .detail = std::move(*finding.mutable_detail()),
                    .repair = std::move(*finding.mutable_repair()),
                    .repairable = finding.repairable(),
                    .harmless = finding.harmless()}};
}

Status FromDaemon(const grpc::Status& status) {
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return MakeStatus(StatusCode::kUnimplemented,
                      "what serves here is no daemon of strata, or one of an older version");
  }
  return codec::FromGrpc(status);
}

// Waits for an answer that may take long, and says so.
template <typename Reader, typename Response>
Status Await(Reader& reader, grpc::CompletionQueue& queue, Response* response, Progress& progress,
             const std::string& what) {
  constexpr std::chrono::milliseconds kStep{250};
  const auto begin = std::chrono::steady_clock::now();
  grpc::Status status;
  reader->Finish(response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  while (queue.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + kStep) ==
         grpc::CompletionQueue::TIMEOUT) {
    const auto passed =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - begin);
    progress.Tell(what + ", " + std::to_string(passed.count()) + "s");
  }
  return FromDaemon(status);
}

class ServedNode final : public Node {
 public:
  explicit ServedNode(std::shared_ptr<grpc::Channel> channel)
      : channel_(std::move(channel)), stub_(wire::Control::NewStub(channel_)) {}

  StatusOr<Description> Describe() override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    wire::DescribeResponse answer;
    STRATA_RETURN_IF_ERROR(FromDaemon(stub_->Describe(&context, {}, &answer)));
    return Description{.kind = answer.kind(),
                       .root = answer.root(),
                       .version = answer.version(),
                       .pid = answer.pid()};
  }

  StatusOr<std::vector<NodeSnapshot>> Snapshots(bool labels, Progress& progress) override {
    std::vector<NodeSnapshot> all;
    wire::SnapshotsRequest request;
    request.set_labels(labels);
    while (true) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + kLongPatience);
      wire::SnapshotsResponse answer;
      STRATA_RETURN_IF_ERROR(FromDaemon(stub_->Snapshots(&context, request, &answer)));
      if (answer.rows().empty()) {
        return all;
      }
      request.set_after(answer.rows().rbegin()->id());
      for (wire::SnapshotRow& row : *answer.mutable_rows()) {
        all.push_back(FromWire(row));
      }
      progress.Tell(std::to_string(all.size()) + " snapshots measured");
    }
  }

  StatusOr<NodeCheck> Check(Progress& progress) override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kLongPatience);
    grpc::CompletionQueue queue;
    const auto reader = stub_->AsyncCheck(&context, {}, &queue);
    wire::CheckResponse answer;
    STRATA_RETURN_IF_ERROR(Await(reader, queue, &answer, progress, "the daemon checks its root"));
    NodeCheck check{.records = answer.records(),
                    .directories = answer.directories(),
                    .truncated = answer.truncated()};
    for (wire::Finding& finding : *answer.mutable_findings()) {
      check.findings.push_back(FromWire(finding));
    }
    return check;
  }

  StatusOr<RootSpace> Space() override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kLongPatience);
    wire::SpaceResponse answer;
    STRATA_RETURN_IF_ERROR(FromDaemon(stub_->Space(&context, {}, &answer)));
    return RootSpace{.file_system = answer.file_system(),
                     .total_bytes = answer.total_bytes(),
                     .free_bytes = answer.free_bytes(),
                     .total_inodes = answer.total_inodes(),
                     .free_inodes = answer.free_inodes(),
                     .trash_entries = answer.trash_entries(),
                     .trash_bytes = answer.trash_bytes(),
                     .layers = answer.layers(),
                     .layer_bytes = answer.layer_bytes(),
                     .reserve_bytes = answer.reserve_bytes(),
                     .metadata_bytes = answer.metadata_bytes()};
  }

  Status Cleanup() override {
    CallContext call;
    return NewProxySnapshotter(channel_, {.call_timeout = kPatience})->Cleanup(call);
  }

  Status CanRepair() override {
    STRATA_ASSIGN_OR_RETURN(const Description description, Describe());
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "a daemon serves root '" + description.root +
                          "', and nothing is repaired behind its back: stop it, and run "
                          "stratactl --root " +
                          description.root + " fsck --repair");
  }

  StatusOr<std::vector<Status>> Repair(const std::vector<RootFinding>& /*findings*/) override {
    return CanRepair();
  }

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<wire::Control::Stub> stub_;
};

}  // namespace

std::unique_ptr<Node> NewServedNode(std::shared_ptr<grpc::Channel> channel) {
  return std::make_unique<ServedNode>(std::move(channel));
}

}  // namespace strata
