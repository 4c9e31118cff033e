// SPDX-License-Identifier: Apache-2.0
//
// ServerProcess: one of our daemons as a child, which dies with its owner. For tests only; one
// thread.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata::testing {

class ServerProcess {
 public:
  // Generous: only a test that fails ever waits this long.
  static constexpr int kLimitMs = 30'000;

  struct Options {
    std::string program;
    std::string root;
    std::string socket;
    std::string log;  // file that takes its standard error
    std::vector<std::string> extra_arguments;
    std::map<std::string, std::string> environment;  // added to ours
  };

  static StatusOr<ServerProcess> Start(const Options& options);
  ~ServerProcess();
  ServerProcess(ServerProcess&& other) noexcept;
  ServerProcess& operator=(ServerProcess&& other) noexcept;
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // Waits until it accepts connections. FailedPrecondition when it ended instead.
  Status WaitServing();

  [[nodiscard]] pid_t pid() const { return pid_; }
  // Whether it has ended, by itself or by a signal.
  bool Ended();
  void Kill();
  // SIGTERM, then waits: its exit code, or an error when it took too long or died by a signal.
  StatusOr<int> Stop();

 private:
  ServerProcess(pid_t pid, std::string socket) : pid_(pid), socket_(std::move(socket)) {}
  void Reap();

  pid_t pid_ = -1;
  int wait_status_ = 0;
  std::string socket_;
};

}  // namespace strata::testing
