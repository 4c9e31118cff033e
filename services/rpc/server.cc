// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/server.h"

#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <thread>
#include <utility>

#include "services/rpc/call_queue.h"
#include "services/rpc/control_service.h"
#include "services/rpc/health_service.h"
#include "services/rpc/served_calls.h"
#include "snapshotters/base/log.h"

namespace strata {
namespace {

// Headers of a call: containerd's namespace and lease, and what proxies add.
constexpr int kMaxMetadataBytes = 64 * 1024;
// Clients may ping this often (ours do when asked to); gRPC's default would hang up on them.
constexpr int kLeastPingIntervalMs = 500;
// After a failed accept (no descriptors left) the queue is left alone for this long.
constexpr int kAcceptPauseMs = 50;
// How long a client may take to acknowledge the end of its connection.
constexpr std::chrono::milliseconds kConnectionPatience{200};

class QueueServer final : public RpcServer {
 public:
  ~QueueServer() override { Stop(std::chrono::milliseconds(0)); }

  Status Begin(SnapshotsServiceTargets targets, ControlSource* control,
               std::vector<Listener> listeners) {
    listeners_ = std::move(listeners);
    wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake_.valid()) {
      return ErrnoStatus(errno, "make an eventfd");
    }
    AddMethods(targets, control);
    grpc::ServerBuilder builder;
    queue_ = std::make_unique<CallQueue>(builder.AddCompletionQueue());
    calls_ = std::make_unique<ServedCalls>(builder, *queue_, methods_);
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.SetMaxSendMessageSize(kMaxMessageBytes);
    builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                               kLeastPingIntervalMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    // No bandwidth estimation: its pings cost more than the windows of a local socket matter.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    // Nobody asks for gRPC's own statistics, and answers are short: both cost something in each
    // call.
    builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
    builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
    // We accept, gRPC serves: its own unix listener would unlink a socket that systemd owns.
    acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
        grpc::InsecureServerCredentials());
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) {
      return MakeStatus(StatusCode::kResourceExhausted, "start the gRPC server: it gave no reason");
    }
    calls_->Begin();
    queue_->Start();
    health_->SetServing(true);
    thread_ = std::thread([this] { AcceptLoop(); });
    return OkStatus();
  }

  void Stop(std::chrono::milliseconds patience) override {
    if (server_ == nullptr) {
      return;
    }
    health_->SetServing(false);
    const uint64_t one = 1;
    // Cannot fail: the counter is far from its limit (eventfd(2)).
    (void)!::write(wake_.get(), &one, sizeof(one));
    thread_.join();
    service_->Drain(patience);
    if (control_ != nullptr) {
      control_->Drain(patience);
    }
    // Nobody waits for an answer of ours any more; what is left are connections whose clients do
    // not read.
    server_->Shutdown(std::chrono::system_clock::now() + kConnectionPatience);
    server_->Wait();
    calls_->WaitUntilEnded();
    queue_->Stop();
    server_.reset();
    listeners_.clear();
  }

 private:
  void AddMethods(SnapshotsServiceTargets targets, ControlSource* control) {
    std::vector<std::string> services = {"containerd.services.snapshots.v1.Snapshots"};
    service_ = NewSnapshotsService(targets);
    service_->AddTo(&methods_);
    if (control != nullptr) {
      services.emplace_back("strata.control.v1.Control");
      control_ = NewControlService(*control, targets.walks);
      control_->AddTo(&methods_);
    }
    health_ = NewHealthService(std::move(services));
    health_->AddTo(&methods_);
  }

  void AcceptLoop() {
    std::vector<pollfd> polled;
    for (const Listener& listener : listeners_) {
      polled.push_back({.fd = listener.fd(), .events = POLLIN, .revents = 0});
    }
    polled.push_back({.fd = wake_.get(), .events = POLLIN, .revents = 0});
    while (true) {
      if (::poll(polled.data(), polled.size(), /*timeout=*/-1) < 0 && errno != EINTR) {
        LogError("cannot wait for connections",
                 {{"error", std::string(StatusMessage(ErrnoStatus(errno, "poll")))}});
        return;
      }
      if (polled.back().revents != 0) {
        return;
      }
      for (size_t i = 0; i + 1 < polled.size(); ++i) {
        if (polled[i].revents != 0) {
          AcceptAll(polled[i].fd);
        }
      }
    }
  }

  void AcceptAll(int listener) {
    while (true) {
      UniqueFd connection(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!connection.valid()) {
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
          return;
        }
        if (errno != EINTR && errno != ECONNABORTED) {
          LogWarn("cannot accept a connection, trying again",
                  {{"error", std::string(StatusMessage(ErrnoStatus(errno, "accept")))}});
          pollfd stop = {.fd = wake_.get(), .events = POLLIN, .revents = 0};
          (void)::poll(&stop, 1, kAcceptPauseMs);  // only a pause; the caller's loop sees a stop
          return;
        }
        continue;
      }
      grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
      parameters.listener_fd = listener;
      parameters.fd = connection.Release();  // gRPC closes it
      acceptor_->HandleNewConnection(&parameters);
    }
  }

  std::vector<Listener> listeners_;
  UniqueFd wake_;
  std::unique_ptr<SnapshotsService> service_;
  std::unique_ptr<ControlService> control_;
  std::unique_ptr<HealthService> health_;
  MethodTable methods_;
  std::unique_ptr<ServedCalls> calls_;  // outlives the threads of the queue
  std::unique_ptr<CallQueue> queue_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
  std::thread thread_;
};

}  // namespace

StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(SnapshotsServiceTargets targets,
                                                      ControlSource* control,
                                                      std::vector<Listener> listeners) {
  auto server = std::make_unique<QueueServer>();
  STRATA_RETURN_IF_ERROR(server->Begin(targets, control, std::move(listeners)));
  return server;
}

}  // namespace strata
