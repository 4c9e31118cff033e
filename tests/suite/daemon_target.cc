// SPDX-License-Identifier: Apache-2.0
#include "tests/suite/daemon_target.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>
#include <utility>

#include "client/dial.h"
#include "client/proxy_snapshotter.h"
#include "snapshotters/base/check.h"

namespace strata::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

class DaemonInstance : public SuiteInstance {
 public:
  explicit DaemonInstance(std::vector<std::string> command, std::string socket)
      : command_(std::move(command)), socket_(std::move(socket)) {
    Start();
  }
  ~DaemonInstance() override { Stop(); }
  DaemonInstance(const DaemonInstance&) = delete;
  DaemonInstance& operator=(const DaemonInstance&) = delete;

  Snapshotter& snapshotter() override { return *snapshotter_; }

  void Restart() override {
    Stop();
    Start();
  }

 private:
  void Start() {
    std::vector<char*> arguments;
    for (std::string& argument : command_) {
      arguments.push_back(argument.data());
    }
    arguments.push_back(nullptr);
    STRATA_CHECK(::posix_spawn(&pid_, arguments[0], /*file_actions=*/nullptr, /*attrp=*/nullptr,
                               arguments.data(), environ) == 0);
    snapshotter_ = NewProxySnapshotter(
        Connect(), {.snapshotter_name = "suite", .call_timeout = milliseconds(kSuiteLimit)});
  }

  // The socket is there some time after the process.
  std::shared_ptr<grpc::Channel> Connect() {
    const auto start = steady_clock::now();
    for (;;) {
      auto channel = Dial(socket_, {.wait_for_ready = milliseconds(200)});
      if (channel.ok()) {
        return *std::move(channel);
      }
      const bool over = ::waitpid(pid_, nullptr, WNOHANG) != 0;
      if (over || steady_clock::now() - start > kSuiteLimit) {
        (void)std::fprintf(stderr, "%s %s: %s\n", command_[0].c_str(),
                           over ? "has ended" : "does not answer",
                           channel.status().ToString().c_str());
      }
      STRATA_CHECK(!over && steady_clock::now() - start < kSuiteLimit);
      std::this_thread::sleep_for(milliseconds(2));
    }
  }

  void Stop() {
    snapshotter_.reset();
    STRATA_CHECK(::kill(pid_, SIGTERM) == 0);
    int status = 0;
    const auto start = steady_clock::now();
    while (::waitpid(pid_, &status, WNOHANG) == 0) {
      if (steady_clock::now() - start > kSuiteLimit) {
        ADD_FAILURE() << "the server ignores SIGTERM";
        STRATA_CHECK(::kill(pid_, SIGKILL) == 0);
        STRATA_CHECK(::waitpid(pid_, &status, 0) == pid_);
        return;
      }
      std::this_thread::sleep_for(milliseconds(1));
    }
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "wait status " << status;
  }

  std::vector<std::string> command_;
  const std::string socket_;
  pid_t pid_ = -1;
  std::unique_ptr<Snapshotter> snapshotter_;
};

}  // namespace

SuiteTarget DaemonTarget(std::string name, std::string kind, const std::string& binary,
                         const std::vector<std::string>& arguments) {
  SuiteTarget target{.name = std::move(name), .kind = std::move(kind)};
  target.make = [binary, arguments](const std::string& root) -> std::unique_ptr<SuiteInstance> {
    if (::access(binary.c_str(), X_OK) != 0) {
      return nullptr;
    }
    const std::string socket = root + ".sock";
    std::vector<std::string> command = {binary, "--root", root, "--socket", socket};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return std::make_unique<DaemonInstance>(std::move(command), socket);
  };
  return target;
}

SuiteTarget StrataDaemonTarget(const std::string& kind) {
  return DaemonTarget("Daemon", kind, Environment("STRATA_BUILD_ROOT") + "/services/strata-" + kind,
                      {"--log-level", "warn", "--anchor-dir", ""});
}

std::vector<SuiteTarget> OtherServerTargets(const std::string& kind) {
  const std::string binary = Environment("STRATA_SUITE_SERVER");
  if (binary.empty() || Environment("STRATA_SUITE_KIND") != kind) {
    return {};
  }
  return {DaemonTarget("Other", kind, binary, {})};
}

}  // namespace strata::testing
