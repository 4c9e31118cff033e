// SPDX-License-Identifier: Apache-2.0
#include "tests/client/fake_snapshots.h"

#include <fcntl.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string_view>
#include <utility>

#include "snapshotters/base/check.h"
#include "snapshotters/base/unique_fd.h"

namespace strata::testing {
namespace {

using std::chrono::milliseconds;

constexpr std::chrono::seconds kLimit{60};
constexpr milliseconds kPoll{2};
constexpr int kMaxMessageBytes = 16 << 20;

std::unique_ptr<grpc::Server> Serve(const std::string& socket, grpc::Service* service) {
  // Escaped like the client's target: tests use paths of all kinds.
  std::string address = "unix:";
  for (const char character : socket) {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    const auto byte = static_cast<unsigned char>(character);
    if (character == '/') {
      address += character;
    } else {
      address += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.RegisterService(service);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // Tests ping more often than servers allow by default (every 5 minutes).
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 100);
  return builder.BuildAndStart();
}

}  // namespace

void FakeSnapshots::Play(Script script) {
  const std::lock_guard lock(mutex_);
  script_ = std::move(script);
}

Seen FakeSnapshots::seen() {
  const std::lock_guard lock(mutex_);
  return seen_;
}

bool FakeSnapshots::WaitForGoneCallers(int count) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kLimit, [&] { return gone_callers_ >= count; });
}

bool FakeSnapshots::WaitForCalls(int count) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kLimit, [&] { return seen_.calls >= count; });
}

Script FakeSnapshots::Note(grpc::ServerContext* context, const google::protobuf::Message& request) {
  const std::lock_guard lock(mutex_);
  ++seen_.calls;
  seen_.request = request.SerializeAsString();
  const grpc::string_ref authority = context->ExperimentalGetAuthority();
  seen_.authority.assign(authority.data(), authority.size());
  seen_.headers.clear();
  for (const auto& [key, value] : context->client_metadata()) {
    seen_.headers.emplace(std::string(key.data(), key.size()),
                          std::string(value.data(), value.size()));
  }
  changed_.notify_all();
  return script_;
}

grpc::Status FakeSnapshots::End(grpc::ServerContext* context, const Script& script) {
  std::unique_lock lock(mutex_);
  while (script.hang && !context->IsCancelled()) {
    changed_.wait_for(lock, kPoll);
  }
  if (script.hang) {
    ++gone_callers_;
    changed_.notify_all();
  }
  return script.status;
}

grpc::Status FakeSnapshots::Prepare(grpc::ServerContext* context,
                                    const wire::PrepareSnapshotRequest* request,
                                    wire::PrepareSnapshotResponse* response) {
  const Script script = Note(context, *request);
  response->mutable_mounts()->Assign(script.mounts.begin(), script.mounts.end());
  return End(context, script);
}

grpc::Status FakeSnapshots::View(grpc::ServerContext* context,
                                 const wire::ViewSnapshotRequest* request,
                                 wire::ViewSnapshotResponse* response) {
  const Script script = Note(context, *request);
  response->mutable_mounts()->Assign(script.mounts.begin(), script.mounts.end());
  return End(context, script);
}

grpc::Status FakeSnapshots::Mounts(grpc::ServerContext* context, const wire::MountsRequest* request,
                                   wire::MountsResponse* response) {
  const Script script = Note(context, *request);
  response->mutable_mounts()->Assign(script.mounts.begin(), script.mounts.end());
  return End(context, script);
}

grpc::Status FakeSnapshots::Commit(grpc::ServerContext* context,
                                   const wire::CommitSnapshotRequest* request,
                                   google::protobuf::Empty* /*response*/) {
  return End(context, Note(context, *request));
}

grpc::Status FakeSnapshots::Remove(grpc::ServerContext* context,
                                   const wire::RemoveSnapshotRequest* request,
                                   google::protobuf::Empty* /*response*/) {
  return End(context, Note(context, *request));
}

grpc::Status FakeSnapshots::Stat(grpc::ServerContext* context,
                                 const wire::StatSnapshotRequest* request,
                                 wire::StatSnapshotResponse* response) {
  const Script script = Note(context, *request);
  *response->mutable_info() = script.info;
  return End(context, script);
}

grpc::Status FakeSnapshots::Update(grpc::ServerContext* context,
                                   const wire::UpdateSnapshotRequest* request,
                                   wire::UpdateSnapshotResponse* response) {
  const Script script = Note(context, *request);
  *response->mutable_info() = script.info;
  return End(context, script);
}

grpc::Status FakeSnapshots::List(grpc::ServerContext* context,
                                 const wire::ListSnapshotsRequest* request,
                                 grpc::ServerWriter<wire::ListSnapshotsResponse>* writer) {
  const Script script = Note(context, *request);
  int row = 0;
  for (const int rows : script.messages) {
    if (script.pause.count() > 0) {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, script.pause, [&] { return context->IsCancelled(); });
    }
    wire::ListSnapshotsResponse message;
    for (int i = 0; i < rows; ++i) {
      *message.add_info() = script.info;
      message.mutable_info(i)->set_name("row-" + std::to_string(row++));
    }
    writer->Write(message);
  }
  return End(context, script);
}

grpc::Status FakeSnapshots::Usage(grpc::ServerContext* context, const wire::UsageRequest* request,
                                  wire::UsageResponse* response) {
  const Script script = Note(context, *request);
  response->set_size(script.size);
  response->set_inodes(script.inodes);
  return End(context, script);
}

grpc::Status FakeSnapshots::Cleanup(grpc::ServerContext* context,
                                    const wire::CleanupRequest* request,
                                    google::protobuf::Empty* /*response*/) {
  return End(context, Note(context, *request));
}

FakeServer::FakeServer(std::string socket) : socket_(std::move(socket)) {
  Start();
}

void FakeServer::Start() {
  STRATA_CHECK(server_ == nullptr);
  server_ = Serve(socket_, &snapshots);
  STRATA_CHECK(server_ != nullptr);
}

void FakeServer::Stop() {
  if (server_ != nullptr) {
    server_->Shutdown(std::chrono::system_clock::now());  // by then: at once
    server_.reset();
  }
}

ServerProcess::ServerProcess(const std::string& socket) {
  int pipe_fds[2];
  STRATA_CHECK(::pipe2(pipe_fds, O_CLOEXEC) == 0);
  const UniqueFd readable(pipe_fds[0]);
  UniqueFd writable(pipe_fds[1]);
  posix_spawn_file_actions_t actions;
  STRATA_CHECK(::posix_spawn_file_actions_init(&actions) == 0);
  STRATA_CHECK(::posix_spawn_file_actions_adddup2(&actions, writable.get(), STDOUT_FILENO) == 0);
  std::string program = "client_test";
  std::string flag = "--serve";
  std::string path = socket;
  char* const arguments[] = {program.data(), flag.data(), path.data(), nullptr};
  STRATA_CHECK(::posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, arguments, environ) == 0);
  STRATA_CHECK(::posix_spawn_file_actions_destroy(&actions) == 0);
  writable.Reset();
  pollfd ready{.fd = readable.get(), .events = POLLIN, .revents = 0};
  STRATA_CHECK(::poll(&ready, 1, static_cast<int>(milliseconds(kLimit).count())) == 1);
  char byte = 0;
  STRATA_CHECK(::read(readable.get(), &byte, 1) == 1);  // 0: it has ended
}

void ServerProcess::Stop() {
  STRATA_CHECK(::kill(pid_, SIGSTOP) == 0);
  int status = 0;
  STRATA_CHECK(::waitpid(pid_, &status, WUNTRACED) == pid_ && WIFSTOPPED(status));
}

void ServerProcess::Continue() {
  STRATA_CHECK(::kill(pid_, SIGCONT) == 0);
}

void ServerProcess::Kill() {
  if (pid_ > 0) {
    STRATA_CHECK(::kill(pid_, SIGKILL) == 0);
    STRATA_CHECK(::waitpid(pid_, nullptr, 0) == pid_);
    pid_ = -1;
  }
}

int ServeUntilKilled(const std::string& socket) {
  STRATA_CHECK(::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
  FakeServer server(socket);
  STRATA_CHECK(::write(STDOUT_FILENO, "r", 1) == 1);
  for (;;) {
    ::pause();
  }
}

}  // namespace strata::testing
