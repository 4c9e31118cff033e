// SPDX-License-Identifier: Apache-2.0
//
// A snapshots server for tests of the client: it keeps no snapshots, but answers as it is told and
// notes what it was asked. FakeServer runs it in this process, ServerProcess in another one. Safe
// from any thread.
#pragma once

#include <grpcpp/server.h>
#include <services/snapshots/v1/snapshots.grpc.pb.h>
#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace strata::testing {

namespace wire = containerd::services::snapshots::v1;

// What happens to a call of FakeSnapshots.
struct Script {
  grpc::Status status;  // after the answer, or instead of it
  bool hang = false;    // before the end, until the caller has gone
  // Answers of the calls that have one.
  std::vector<containerd::types::Mount> mounts;
  wire::Info info;
  int64_t size = 0;
  int64_t inodes = 0;
  // Rows of each message of List, named row-0, row-1 and so on, and the pause before each.
  std::vector<int> messages;
  std::chrono::milliseconds pause{0};
};

// What a call brought.
struct Seen {
  int calls = 0;
  std::string request;  // of the last call, serialized
  std::string authority;
  std::multimap<std::string, std::string> headers;
};

class FakeSnapshots : public wire::Snapshots::Service {
 public:
  void Play(Script script);
  Seen seen();
  // True once `count` calls have seen their caller go; false when that takes too long.
  bool WaitForGoneCallers(int count);
  // True once `count` calls have come in; false when that takes too long.
  bool WaitForCalls(int count);

  grpc::Status Prepare(grpc::ServerContext* context, const wire::PrepareSnapshotRequest* request,
                       wire::PrepareSnapshotResponse* response) override;
  grpc::Status View(grpc::ServerContext* context, const wire::ViewSnapshotRequest* request,
                    wire::ViewSnapshotResponse* response) override;
  grpc::Status Mounts(grpc::ServerContext* context, const wire::MountsRequest* request,
                      wire::MountsResponse* response) override;
  grpc::Status Commit(grpc::ServerContext* context, const wire::CommitSnapshotRequest* request,
                      google::protobuf::Empty* response) override;
  grpc::Status Remove(grpc::ServerContext* context, const wire::RemoveSnapshotRequest* request,
                      google::protobuf::Empty* response) override;
  grpc::Status Stat(grpc::ServerContext* context, const wire::StatSnapshotRequest* request,
                    wire::StatSnapshotResponse* response) override;
  grpc::Status Update(grpc::ServerContext* context, const wire::UpdateSnapshotRequest* request,
                      wire::UpdateSnapshotResponse* response) override;
  grpc::Status List(grpc::ServerContext* context, const wire::ListSnapshotsRequest* request,
                    grpc::ServerWriter<wire::ListSnapshotsResponse>* writer) override;
  grpc::Status Usage(grpc::ServerContext* context, const wire::UsageRequest* request,
                     wire::UsageResponse* response) override;
  grpc::Status Cleanup(grpc::ServerContext* context, const wire::CleanupRequest* request,
                       google::protobuf::Empty* response) override;

 private:
  Script Note(grpc::ServerContext* context, const google::protobuf::Message& request);
  grpc::Status End(grpc::ServerContext* context, const Script& script);

  std::mutex mutex_;
  std::condition_variable changed_;
  Script script_;
  Seen seen_;
  int gone_callers_ = 0;
};

// `snapshots` on a socket in this process until Stop, which removes the socket.
class FakeServer {
 public:
  explicit FakeServer(std::string socket);
  ~FakeServer() { Stop(); }

  void Start();
  void Stop();

  FakeSnapshots snapshots;

 private:
  const std::string socket_;
  std::unique_ptr<grpc::Server> server_;
};

// FakeSnapshots in a process of its own, which can be stopped and killed; a killed one leaves its
// socket. Ready when the constructor returns.
class ServerProcess {
 public:
  explicit ServerProcess(const std::string& socket);
  ~ServerProcess() { Kill(); }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // SIGSTOP; returns when the process stands still.
  void Stop();
  // SIGCONT.
  void Continue();
  // SIGKILL; returns when it is gone.
  void Kill();

 private:
  pid_t pid_ = -1;
};

// The main function of a ServerProcess: serves until it is killed or its parent has gone.
int ServeUntilKilled(const std::string& socket);

}  // namespace strata::testing
