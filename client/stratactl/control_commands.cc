// SPDX-License-Identifier: Apache-2.0
#include "client/stratactl/control_commands.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <strata/control/v1/control.grpc.pb.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "client/stratactl/output.h"
#include "client/stratactl/table.h"
#include "protos/codec/status_codec.h"

namespace strata {
namespace {

namespace wire = ::strata::control::v1;
using Json = nlohmann::json;
using std::chrono::steady_clock;

// A snapshotter that does not answer by then is as good as none.
constexpr std::chrono::seconds kPatience{30};

Json ToJson(const wire::Layer& layer) {
  return {{"number", layer.number()},
          {"reference", layer.reference()},
          {"digest", layer.digest()},
          {"reason", layer.reason()},
          {"detail", layer.detail()},
          {"blob_bytes", layer.blob_bytes()},
          {"chunks", layer.chunks()},
          {"present_chunks", layer.present_chunks()},
          {"allocated_bytes", layer.allocated_bytes()},
          {"presenter", layer.presenter()},
          {"disk_full", layer.disk_full()}};
}

std::vector<std::string> ToRow(const wire::Layer& layer) {
  const bool lazy = layer.number() != 0;
  const uint64_t percent =
      layer.chunks() == 0 ? 100 : layer.present_chunks() * 100 / layer.chunks();
  std::string detail = layer.reason();
  detail += !detail.empty() && !layer.detail().empty() ? ": " : "";
  detail += layer.detail();
  return {lazy ? std::to_string(layer.number()) : "-",
          layer.presenter().empty() ? "-" : layer.presenter(),
          lazy ? std::to_string(percent) + "%" : "-",
          lazy ? ShowBytes(layer.allocated_bytes()) : "-",
          layer.digest().substr(0, std::string("sha256:").size() + 12),
          layer.reference(),
          detail};
}

Json ToJson(const wire::DrainProgress& progress) {
  Json failed = Json::array();
  for (const wire::FailedLayer& layer : progress.failed()) {
    failed.push_back(
        {{"number", layer.number()}, {"reference", layer.reference()}, {"detail", layer.detail()}});
  }
  return {{"layers", progress.layers()},
          {"layers_left", progress.layers_left()},
          {"bytes_left", progress.bytes_left()},
          {"failed", failed}};
}

// Tells how long it will take, by how fast it has been.
class DrainReport {
 public:
  explicit DrainReport(const ControlCommand& command) : command_(command) {}

  void Show(const wire::DrainProgress& progress) {
    if (first_bytes_ < progress.bytes_left()) {
      first_bytes_ = progress.bytes_left();  // more layers came
      begin_ = steady_clock::now();
    }
    const auto left = SecondsLeft(progress.bytes_left());
    if (command_.json) {
      Json value = ToJson(progress);
      value["seconds_left"] = left.has_value() ? Json(*left) : Json();
      PrintJson(command_.out, value);
      return;
    }
    command_.out << progress.layers_left() << " of " << progress.layers() << " layers left, "
                 << ShowBytes(progress.bytes_left())
                 << (left.has_value() && *left > 0 ? ", " + ShowSeconds(*left) : "") << std::endl;
    ShowFailures(progress);
  }

 private:
  [[nodiscard]] std::optional<uint64_t> SecondsLeft(uint64_t bytes) const {
    const double seconds = std::chrono::duration<double>(steady_clock::now() - begin_).count();
    const auto done = static_cast<double>(first_bytes_ - bytes);
    if (bytes == 0) {
      return 0;
    }
    if (done <= 0 || seconds <= 0) {
      return std::nullopt;
    }
    return static_cast<uint64_t>(static_cast<double>(bytes) / done * seconds) + 1;
  }

  // Each once, as long as it says the same.
  void ShowFailures(const wire::DrainProgress& progress) {
    for (const wire::FailedLayer& layer : progress.failed()) {
      const std::string line = "layer " + std::to_string(layer.number()) + " of " +
                               Printable(layer.reference()) + ": " + Printable(layer.detail());
      if (said_.insert(line).second) {
        command_.out << line << std::endl;
      }
    }
  }

  const ControlCommand& command_;
  steady_clock::time_point begin_ = steady_clock::now();
  uint64_t first_bytes_ = 0;
  std::set<std::string> said_;
};

// The standard health service, whose messages have one field each: a name (none: the whole server)
// and a status as varint, 1 for "serving". gRPC for C++ comes without its client.
StatusOr<bool> AskHealth(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  grpc::CompletionQueue queue;
  const grpc::Slice nothing;
  const grpc::ByteBuffer request(&nothing, 1);  // one without a slice is no message
  const auto call =
      stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  (void)queue.Next(&tag, &ok);  // `status` says what came of it
  STRATA_RETURN_IF_ERROR(codec::FromGrpc(status));
  std::vector<grpc::Slice> slices;
  if (!answer.Dump(&slices).ok()) {
    return MakeStatus(StatusCode::kUnavailable, "ask for health: the answer cannot be read");
  }
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes == std::string("\x08\x01", 2);
}

}  // namespace

Status ShowLayers(const ControlCommand& command) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  wire::ListLayersResponse answer;
  STRATA_RETURN_IF_ERROR(
      codec::FromGrpc(wire::Control::NewStub(command.channel)->ListLayers(&context, {}, &answer)));
  if (command.json) {
    Json list = Json::array();
    for (const wire::Layer& layer : answer.layers()) {
      list.push_back(ToJson(layer));
    }
    PrintJson(command.out, list);
    return OkStatus();
  }
  std::vector<std::vector<std::string>> rows;
  for (const wire::Layer& layer : answer.layers()) {
    rows.push_back(ToRow(layer));
  }
  PrintTable(command.out, {"LAYER", "PRESENTER", "PRESENT", "ON DISK", "DIGEST", "IMAGE", "DETAIL"},
             rows, command.columns);
  return OkStatus();
}

Status ShowCounters(const ControlCommand& command) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  wire::CountersResponse answer;
  STRATA_RETURN_IF_ERROR(
      codec::FromGrpc(wire::Control::NewStub(command.channel)->Counters(&context, {}, &answer)));
  if (command.json) {
    Json counters = Json::object();
    for (const wire::Counter& counter : answer.counters()) {
      counters[counter.name()] = counter.value();
    }
    PrintJson(command.out, counters);
    return OkStatus();
  }
  std::vector<std::vector<std::string>> rows;
  for (const wire::Counter& counter : answer.counters()) {
    rows.push_back({counter.name(), std::to_string(counter.value())});
  }
  PrintTable(command.out, {"COUNTER", "VALUE"}, rows, command.columns);
  return OkStatus();
}

Status ShowHealth(const ControlCommand& command) {
  STRATA_ASSIGN_OR_RETURN(const bool serving, AskHealth(command.channel));
  if (command.json) {
    PrintJson(command.out, {{"serving", serving}});
  } else {
    command.out << (serving ? "serving" : "not serving") << std::endl;
  }
  return serving ? OkStatus()
                 : MakeStatus(StatusCode::kUnavailable, "the snapshotter does not serve");
}

Status DrainLayers(const ControlCommand& command, std::chrono::seconds timeout) {
  grpc::ClientContext context;
  if (timeout.count() > 0) {
    context.set_deadline(std::chrono::system_clock::now() + timeout);
  }
  const auto stream = wire::Control::NewStub(command.channel)->Drain(&context, {});
  DrainReport report(command);
  wire::DrainProgress progress;
  while (stream->Read(&progress)) {
    report.Show(progress);
  }
  return codec::FromGrpc(stream->Finish());
}

}  // namespace strata
