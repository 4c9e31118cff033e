// SPDX-License-Identifier: Apache-2.0
#include "client/run/child_process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <string_view>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kKillLimit{5000};
constexpr int kUnknownCode = 255;
// Not in <sys/wait.h> of glibc before 2.36.
constexpr auto kPidFd = static_cast<idtype_t>(3);

// All that the child needs, made before the fork: behind it, only what is async-signal-safe.
struct Prepared {
  std::vector<char*> arguments;
  std::vector<char*> environment;
  int streams[3] = {-1, -1, -1};
  int report = -1;  // takes the errno of a failure; closed by a successful execve
  pid_t parent = -1;
};

[[noreturn]] void Fail(int report) {
  const int error = errno;
  (void)!::write(report, &error, sizeof(error));  // an empty report says enough, too
  ::_exit(127);
}

[[noreturn]] void RunChild(const Prepared& prepared) {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) {
    (void)::sigaction(signal, &standard, nullptr);  // SIGKILL and SIGSTOP cannot be set
  }
  sigset_t none;
  (void)::sigemptyset(&none);
  (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
  (void)::setsid();  // a new child leads no group, so it cannot fail
  (void)::umask(022);
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
    Fail(prepared.report);
  }
  if (::getppid() != prepared.parent) {
    ::_exit(127);  // it ended before it could be noticed
  }
  int streams[3];
  for (int i = 0; i < 3; ++i) {
    // Out of the way of the three numbers first.
    streams[i] = ::fcntl(prepared.streams[i], F_DUPFD_CLOEXEC, 3);
    if (streams[i] < 0) {
      Fail(prepared.report);
    }
  }
  for (int i = 0; i < 3; ++i) {
    if (::dup2(streams[i], i) < 0) {
      Fail(prepared.report);
    }
  }
  // Linux 5.11. What others have left inheritable is not for a container.
  (void)::syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
  (void)::execve(prepared.arguments[0], prepared.arguments.data(), prepared.environment.data());
  Fail(prepared.report);
}

bool BelongsToService(std::string_view variable) {
  return variable.starts_with("NOTIFY_SOCKET=") || variable.starts_with("LISTEN_FDS=") ||
         variable.starts_with("LISTEN_PID=") || variable.starts_with("LISTEN_FDNAMES=");
}

// -1 and errno when there is no child. No handler of ours may run in it, hence all signals wait.
pid_t Fork(const Prepared& prepared) {
  sigset_t all;
  sigset_t before;
  (void)::sigfillset(&all);
  (void)::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::fork();
  if (pid == 0) {
    RunChild(prepared);
  }
  const int error = errno;
  (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return pid;
}

int MillisecondsLeft(steady_clock::time_point end) {
  const auto left = std::chrono::ceil<milliseconds>(end - steady_clock::now()).count();
  return static_cast<int>(std::clamp<decltype(left)>(left, 0, INT_MAX));
}

}  // namespace

StatusOr<ChildProcess> ChildProcess::Start(const Command& command) {
  std::vector<std::string> arguments = command.arguments;
  const std::string action = "run " + ShowName(arguments.at(0));
  Prepared prepared;
  for (std::string& argument : arguments) {
    prepared.arguments.push_back(argument.data());
  }
  prepared.arguments.push_back(nullptr);
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!BelongsToService(*variable)) {
      prepared.environment.push_back(*variable);
    }
  }
  prepared.environment.push_back(nullptr);
  STRATA_ASSIGN_OR_RETURN(const UniqueFd null, OpenFile("/dev/null", O_RDWR));
  const int streams[] = {command.in, command.out, command.err};
  std::transform(std::begin(streams), std::end(streams), prepared.streams,
                 [&](int fd) { return fd < 0 ? null.get() : fd; });
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, action + ": pipe");
  }
  const UniqueFd report(ends[0]);
  UniqueFd report_end(ends[1]);
  prepared.report = report_end.get();
  prepared.parent = ::getpid();
  const pid_t pid = Fork(prepared);
  if (pid < 0) {
    return ErrnoStatus(errno, action + ": fork");
  }
  report_end.Reset();
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));  // Linux 5.3
  if (!pidfd.valid()) {
    const int error = errno;
    (void)::kill(pid, SIGKILL);
    (void)::waitpid(pid, nullptr, 0);
    return ErrnoStatus(error, action + ": pidfd_open");
  }
  ChildProcess child(std::move(pidfd));
  int error = 0;
  ssize_t size = 0;
  while ((size = ::read(report.get(), &error, sizeof(error))) < 0 && errno == EINTR) {
  }
  if (size == sizeof(error)) {
    return ErrnoStatus(error, action);
  }
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pidfd_(std::move(other.pidfd_)), code_(other.code_) {}

ChildProcess::~ChildProcess() {
  if (pidfd_.valid() && !code_.has_value()) {
    (void)Signal(SIGKILL);   // it may have ended by now
    (void)Wait(kKillLimit);  // one that the kernel holds longer stays a zombie until we end
  }
}

Status ChildProcess::Signal(int signal) const {
  if (::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0) == 0) {
    return OkStatus();
  }
  return errno == ESRCH ? MakeStatus(StatusCode::kNotFound, "the process has ended")
                        : ErrnoStatus(errno, "pidfd_send_signal");
}

std::optional<int> ChildProcess::Wait(milliseconds limit) {
  const auto end = steady_clock::now() + limit;
  while (!code_.has_value()) {
    pollfd ended{pidfd_.get(), POLLIN, 0};
    const int ready = ::poll(&ended, 1, MillisecondsLeft(end));
    if (ready < 0 && errno == EINTR) {
      continue;
    }
    if (ready <= 0) {
      return std::nullopt;
    }
    siginfo_t info{};
    if (::waitid(kPidFd, static_cast<id_t>(pidfd_.get()), &info, WEXITED) == 0) {
      code_ = info.si_code == CLD_EXITED ? info.si_status : kUnknownCode;
    } else if (errno != EINTR) {
      code_ = kUnknownCode;  // ECHILD: somebody waits for every child
    }
  }
  return code_;
}

}  // namespace strata
