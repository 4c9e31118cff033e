// SPDX-License-Identifier: Apache-2.0
#include "services/fd_store_holder.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <limits>

#include "services/fd_store_channel.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {
namespace {

constexpr char kProgram[] = "strata-keeper";
// One try: a holder that hangs takes questions and does not answer, until a new one has replaced
// its socket.
constexpr std::chrono::milliseconds kTryPatience{200};
constexpr std::chrono::milliseconds kPollInterval{2};
// Where the child reports a failed exec: its lowest descriptor behind the standard ones.
constexpr int kReportFd = 3;

struct Launch {
  const char* program;
  char* const* arguments;
  int null;
  int report;
};

[[noreturn]] void Fail(int report) {
  const int error = errno;
  (void)!::write(report, &error, sizeof(error));  // then nobody waits for it any more
  ::_exit(127);
}

// Between fork and exec in a process with threads: only what signal-safety(7) allows.
[[noreturn]] void Become(const Launch& launch) {
  if (::dup2(launch.null, 0) < 0 || ::dup2(launch.null, 1) < 0 || ::dup2(launch.null, 2) < 0) {
    Fail(launch.report);
  }
  if (launch.report != kReportFd && ::dup2(launch.report, kReportFd) < 0) {
    Fail(launch.report);
  }
  // A system call by number: there is no knowing what a library's close_range would do besides.
  if (::fcntl(kReportFd, F_SETFD, FD_CLOEXEC) != 0 ||
      ::syscall(SYS_close_range, kReportFd + 1, std::numeric_limits<unsigned>::max(), 0) != 0) {
    Fail(kReportFd);
  }
  struct sigaction plain {};
  plain.sa_handler = SIG_DFL;
  (void)::sigaction(SIGPIPE, &plain, nullptr);  // cannot fail with these arguments
  sigset_t none;
  (void)::sigemptyset(&none);
  (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
  char* const environment[] = {nullptr};
  (void)::execve(launch.program, launch.arguments, environment);
  Fail(kReportFd);
}

// Forks twice, so that the holder is not our child; 0, or why there was no fork.
int ForkTwice(const Launch& launch) {
  const pid_t child = ::fork();
  if (child < 0) {
    return errno;
  }
  if (child == 0) {
    (void)::setsid();  // cannot fail: a new process leads no group
    const pid_t grandchild = ::fork();
    if (grandchild == 0) {
      Become(launch);
    }
    if (grandchild < 0) {
      Fail(launch.report);
    }
    ::_exit(0);
  }
  int state = 0;
  while (::waitpid(child, &state, 0) < 0 && errno == EINTR) {
  }
  return 0;
}

}  // namespace

std::string FindKeeper() {
  std::array<char, 4096> self{};
  const ssize_t length = ::readlink("/proc/self/exe", self.data(), self.size());
  std::string candidates;
  if (length > 0) {
    // Of a program that an upgrade has replaced only the name is followed by " (deleted)".
    candidates = std::string(self.data(), static_cast<size_t>(length));
    candidates.resize(candidates.rfind('/') + 1);
    candidates += ":";
  }
  const char* path = std::getenv("PATH");
  candidates += path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path;
  for (size_t at = 0; at <= candidates.size();) {
    const size_t end = std::min(candidates.find(':', at), candidates.size());
    std::string program = candidates.substr(at, end - at) + "/" + kProgram;
    if (end > at && ::access(program.c_str(), X_OK) == 0) {
      return program;
    }
    at = end + 1;
  }
  return "";
}

Status StartHolder(const std::string& program, const std::string& root,
                   std::chrono::steady_clock::time_point deadline) {
  if (program.empty()) {
    return MakeStatus(StatusCode::kNotFound, std::string("find '") + kProgram +
                                                 "': neither beside this program nor in PATH");
  }
  const std::string action = "start '" + program + " --hold'";
  STRATA_ASSIGN_OR_RETURN(const UniqueFd null, OpenFile("/dev/null", O_RDWR));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "make a pipe");
  }
  const UniqueFd report(ends[0]);
  UniqueFd child_end(ends[1]);
  std::string socket = root + "/" + kHolderSocket;
  std::string name = kProgram;
  std::string hold = "--hold";
  char* const arguments[] = {name.data(), hold.data(), socket.data(), nullptr};
  if (const int error = ForkTwice({.program = program.c_str(),
                                   .arguments = arguments,
                                   .null = null.get(),
                                   .report = child_end.get()});
      error != 0) {
    return ErrnoStatus(error, action);
  }
  child_end.Reset();
  // Closed by the exec, or by the end of the child: this does not hang.
  int error = 0;
  if (::read(report.get(), &error, sizeof(error)) == static_cast<ssize_t>(sizeof(error))) {
    return ErrnoStatus(error, action);
  }
  const FdStoreChannel channel(root, kHolderSocket);
  while (true) {
    const Status answer =
        channel.Barrier(std::min(deadline, std::chrono::steady_clock::now() + kTryPatience));
    if (answer.ok() || std::chrono::steady_clock::now() >= deadline) {
      return Annotate(answer, action);
    }
    (void)::poll(nullptr, 0, static_cast<int>(kPollInterval.count()));
  }
}

}  // namespace strata
