// SPDX-License-Identifier: Apache-2.0
#include "tests/support/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "snapshotters/base/unique_fd.h"

namespace strata::testing {
namespace {

constexpr std::chrono::milliseconds kPoll{2};

bool Accepts(const std::string& socket) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket.c_str(), sizeof(address.sun_path) - 1);
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

}  // namespace

StatusOr<ServerProcess> ServerProcess::Start(const Options& options) {
  std::vector<std::string> arguments = {options.program, "--root", options.root, "--socket",
                                        options.socket};
  arguments.insert(arguments.end(), options.extra_arguments.begin(), options.extra_arguments.end());
  std::vector<char*> argv;
  for (std::string& argument : arguments) {
    argv.push_back(argument.data());
  }
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    variables.emplace_back(*variable);
  }
  for (const auto& [name, value] : options.environment) {
    variables.push_back(name + "=" + value);
  }
  std::vector<char*> envp;
  for (std::string& variable : variables) {
    envp.push_back(variable.data());
  }
  envp.push_back(nullptr);
  const UniqueFd log(::open(options.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) {
    return ErrnoStatus(errno, "fork");
  }
  if (child == 0) {
    // Only async-signal-safe calls: the parent has threads.
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent ||
        ::dup2(log.get(), STDERR_FILENO) < 0) {
      ::_exit(126);
    }
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  return ServerProcess(child, options.socket);
}

ServerProcess::~ServerProcess() {
  Kill();
}

ServerProcess::ServerProcess(ServerProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      wait_status_(other.wait_status_),
      socket_(std::move(other.socket_)) {}

ServerProcess& ServerProcess::operator=(ServerProcess&& other) noexcept {
  if (this != &other) {
    Kill();
    pid_ = std::exchange(other.pid_, -1);
    wait_status_ = other.wait_status_;
    socket_ = std::move(other.socket_);
  }
  return *this;
}

Status ServerProcess::WaitServing() {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kLimitMs);
  while (std::chrono::steady_clock::now() < deadline) {
    if (Accepts(socket_)) {
      return OkStatus();
    }
    if (Ended()) {
      return MakeStatus(StatusCode::kFailedPrecondition, "the server ended before it served");
    }
    std::this_thread::sleep_for(kPoll);
  }
  return MakeStatus(StatusCode::kDeadlineExceeded, "the server does not serve");
}

bool ServerProcess::Ended() {
  if (pid_ > 0 && ::waitpid(pid_, &wait_status_, WNOHANG) == pid_) {
    pid_ = -1;
  }
  return pid_ <= 0;
}

void ServerProcess::Reap() {
  while (pid_ > 0 && ::waitpid(pid_, &wait_status_, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

void ServerProcess::Kill() {
  if (!Ended()) {
    (void)::kill(pid_, SIGKILL);  // ours and not reaped, so the pid is its own
    Reap();
  }
}

StatusOr<int> ServerProcess::Stop() {
  if (!Ended()) {
    (void)::kill(pid_, SIGTERM);
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kLimitMs);
  while (!Ended()) {
    if (std::chrono::steady_clock::now() > deadline) {
      Kill();
      return MakeStatus(StatusCode::kDeadlineExceeded, "the server does not stop");
    }
    std::this_thread::sleep_for(kPoll);
  }
  if (!WIFEXITED(wait_status_)) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "the server died by signal " + std::to_string(WTERMSIG(wait_status_)));
  }
  return WEXITSTATUS(wait_status_);
}

}  // namespace strata::testing
