// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "services/keeper/keeper.h"
#include "services/keeper/kept_fds.h"
#include "services/keeper/own_process.h"
#include "snapshotters/base/unique_fd.h"

namespace strata::keeper {
namespace {

constexpr int64_t kFirstPauseMs = 100;  // before the second restart in a row
constexpr int64_t kLongestPauseMs = 10'000;
constexpr int64_t kGoodLifeMs = 60'000;  // who lived so long is started again at once
constexpr int64_t kCheckPatienceMs = 30'000;
constexpr int64_t kAbortPatienceMs = 30'000;  // for a core dump; then SIGKILL
constexpr int64_t kNever = INT64_MAX;
// A socket's queue is far shorter (net.unix.max_dgram_qlen): this takes all that a process said
// before it ended, and strangers who never stop sending cannot keep us.
constexpr int kMessagesAtATime = 4096;
constexpr int kExitSignal = 128;  // and the number, as a shell has it

int64_t NowMs() {
  timespec now{};
  (void)::clock_gettime(CLOCK_MONOTONIC, &now);  // cannot fail
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

// A variable that is a number; 0 if there is none.
int Variable(const char* name) {
  const char* text = ::getenv(name);
  return text == nullptr ? 0 : static_cast<int>(::strtol(text, nullptr, 10));
}

// Tells the service manager that runs the keeper, if one does.
void TellManager(std::string_view what) {
  const char* variable = ::getenv("NOTIFY_SOCKET");
  const std::string_view path = variable == nullptr ? "" : variable;
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  if (!path.empty() && path.size() < sizeof(address.sun_path)) {
    (void)path.copy(address.sun_path, path.size());
    address.sun_path[0] = path[0] == '@' ? '\0' : path[0];
    // The name of an abstract socket has no terminating zero, unix(7).
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
    const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    (void)::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), size);
    (void)SendWithFd(socket.get(), what, -1);  // nobody there is no failure
  }
}

class Supervisor {
 public:
  explicit Supervisor(const Program& program) : program_(program) {}

  bool Open() {
    AdoptGivenFds();
    sigset_t wanted;
    (void)::sigemptyset(&wanted);
    for (const int number : {SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2}) {
      (void)::sigaddset(&wanted, number);
    }
    signals_ = UniqueFd(::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof(address);
    // With nothing but the family the kernel makes up an abstract name, unix(7).
    if (!signals_.valid() ||
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0 ||
        ::bind(socket_.get(), generic, sizeof(sa_family_t)) != 0 ||
        ::getsockname(socket_.get(), generic, &size) != 0) {
      SayErrno("cannot open", "notify socket");
      return false;
    }
    (void)::snprintf(notify_socket_.data(), notify_socket_.size(), "@%s", address.sun_path + 1);
    return true;
  }

  int Run() {
    start_at_ = NowMs();
    OnTime(start_at_);
    while (!ended_) {
      std::array<pollfd, 2> sources = {
          {{.fd = signals_.get(), .events = POLLIN}, {.fd = socket_.get(), .events = POLLIN}}};
      const int64_t next = std::min({start_at_, check_until_, watchdog_at_});
      const int64_t pause = std::clamp<int64_t>(next - NowMs(), 0, INT_MAX);
      // Whatever it says: what is there is looked at.
      (void)::poll(sources.data(), sources.size(), next == kNever ? -1 : static_cast<int>(pause));
      TakeMessages();
      TakeSignals();
      Reap();
      OnTime(NowMs());
    }
    if (check_ > 0) {
      (void)::kill(check_, SIGKILL);
    }
    if (pid_file_written_) {
      (void)::unlink(program_.pid_file);
    }
    return exit_code_;
  }

 private:
  // What a service manager gave the keeper; it stays when the program removes its name.
  void AdoptGivenFds() {
    const char* names = ::getenv("LISTEN_FDNAMES");
    std::string_view rest = names == nullptr ? "" : names;
    const int count = Variable("LISTEN_PID") == ::getpid() ? Variable("LISTEN_FDS") : 0;
    for (int fd = kFirstGivenFd; fd < kFirstGivenFd + count; ++fd) {
      const std::string_view name = rest.substr(0, rest.find(':'));
      rest.remove_prefix(std::min(rest.size(), name.size() + 1));
      if (::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) {
        kept_.Keep(name.empty() ? "unknown" : name, fd, /*pinned=*/true);
      }
    }
  }

  void OnTime(int64_t now) {
    if (now >= start_at_ && !ended_) {
      StartProgram();
    }
    if (now >= check_until_) {
      check_until_ = kNever;
      (void)::kill(check_, SIGKILL);  // and its end says no
    }
    if (now >= watchdog_at_) {
      Say("the program has not been heard of, ending it");
      (void)::kill(child_, aborted_ ? SIGKILL : SIGABRT);
      aborted_ = true;
      watchdog_at_ = now + kAbortPatienceMs;
    }
  }

  void StartProgram() {
    ready_ = aborted_ = false;
    start_at_ = kNever;
    started_at_ = NowMs();
    child_ = Start(program_, &kept_, notify_socket_.data());
    if (child_ < 0) {
      SayErrno("cannot start", program_.argv[0]);
      child_ = 0;
      start_at_ = started_at_ + kLongestPauseMs;
    }
  }

  void TakeMessages() {
    for (int i = 0; i < kMessagesAtATime && message_.Receive(socket_.get(), child_, 0); ++i) {
      kept_.Apply(message_);
      if (message_.Says("READY=1")) {
        ready_ = has_served_ = true;
        ExpectWatchdog();
        TellManager("READY=1");
        WritePidFile();
      }
      if (message_.Says("WATCHDOG=1")) {
        ExpectWatchdog();
      }
      if (message_.Says("STOPPING=1")) {
        ready_ = false;
        ExpectWatchdog();
        if (stopping_) {  // else a successor comes, and that is no business of the manager
          TellManager("STOPPING=1");
        }
      }
    }
    message_.CloseFds();
  }

  void ExpectWatchdog() {
    const bool expected = program_.watchdog_ms > 0 && ready_ && !stopping_ && !upgrading_;
    if (!aborted_) {
      watchdog_at_ = expected ? NowMs() + program_.watchdog_ms : kNever;
    }
  }

  void WritePidFile() {
    if (program_.pid_file == nullptr || pid_file_written_) {
      return;
    }
    std::array<char, PATH_MAX> path{};
    (void)::snprintf(path.data(), path.size(), "%s.new", program_.pid_file);
    std::array<char, 16> pid{};
    const int size = ::snprintf(pid.data(), pid.size(), "%d\n", ::getpid());
    const UniqueFd file(
        ::open(path.data(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
    pid_file_written_ = ::write(file.get(), pid.data(), static_cast<size_t>(size)) == size &&
                        ::rename(path.data(), program_.pid_file) == 0;
    if (!pid_file_written_) {
      SayErrno("cannot write", program_.pid_file);
    }
  }

  void TakeSignals() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof(info)) == ssize_t{sizeof(info)}) {
      const auto number = static_cast<int>(info.ssi_signo);
      if (number == SIGHUP) {
        BeginUpgrade();
      } else if (number == SIGTERM || number == SIGINT) {
        stopping_ = true;
        AskToEnd(number);
      } else if (number != SIGCHLD && child_ > 0) {  // Reap comes next
        (void)::kill(child_, number);
      }
    }
  }

  // Without a child: as if it had ended.
  void AskToEnd(int number) {
    ExpectWatchdog();
    if (child_ > 0) {
      (void)::kill(child_, number);
    } else if (stopping_) {
      ended_ = true;
    } else {
      upgrading_ = false;
      start_at_ = NowMs();
    }
  }

  void BeginUpgrade() {
    if (stopping_ || upgrading_ || check_ > 0) {
      Say("upgrade: ignored, something is under way");
      return;
    }
    check_ = Start(program_, /*kept=*/nullptr, /*notify_socket=*/nullptr);
    check_until_ = NowMs() + kCheckPatienceMs;
    if (check_ < 0) {
      OnCheckEnd(/*accepted=*/false);
    }
  }

  void OnCheckEnd(bool accepted) {
    check_ = 0;
    check_until_ = kNever;
    Say("upgrade: %s", accepted ? "the new program takes over" : "refused, the old one goes on");
    if (accepted && !stopping_) {
      upgrading_ = true;
      AskToEnd(SIGTERM);
    }
  }

  void Reap() {
    siginfo_t info{};
    while (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
      const pid_t pid = std::exchange(info.si_pid, 0);
      if (pid == child_) {
        TakeMessages();  // what it said before it ended is for its successor
      }
      int status = 0;
      (void)::waitpid(pid, &status, 0);
      if (pid == child_) {
        OnProgramEnd(status);
      } else if (pid == check_) {
        OnCheckEnd(status == 0);
      }  // else an orphan: the keeper may be the first process of a container
    }
  }

  void OnProgramEnd(int status) {
    const int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    exit_code_ = number != 0 ? kExitSignal + number : WEXITSTATUS(status);
    child_ = 0;
    watchdog_at_ = kNever;
    if (stopping_ || (program_.must_start && !has_served_)) {
      ended_ = true;
      return;
    }
    const int64_t now = NowMs();
    if (upgrading_ || now - started_at_ >= kGoodLifeMs) {
      pause_ms_ = 0;
    }
    // Who served and was killed has not failed by itself, and readers wait for its successor.
    const bool blameless = upgrading_ || (ready_ && number == SIGKILL && !aborted_);
    const int64_t pause = blameless ? 0 : pause_ms_;
    if (!blameless) {
      pause_ms_ = std::clamp(2 * pause_ms_, kFirstPauseMs, kLongestPauseMs);
    }
    upgrading_ = false;
    start_at_ = now + pause;
    Say("the program ended with %d, starting it again in %jd ms", exit_code_, intmax_t{pause});
  }

  const Program& program_;
  UniqueFd signals_;
  UniqueFd socket_;
  std::array<char, 128> notify_socket_{};
  KeptFds kept_;
  Message message_;
  pid_t child_ = 0;  // 0: none
  pid_t check_ = 0;  // of an upgrade; 0: none
  int64_t started_at_ = 0;
  int64_t start_at_ = kNever;
  int64_t pause_ms_ = 0;  // before the next restart
  int64_t check_until_ = kNever;
  int64_t watchdog_at_ = kNever;
  bool ready_ = false;  // the child said so
  bool has_served_ = false;
  bool aborted_ = false;   // by the watchdog
  bool stopping_ = false;  // somebody asked us to end
  bool upgrading_ = false;
  bool pid_file_written_ = false;
  bool ended_ = false;
  int exit_code_ = 0;
};

}  // namespace

int Supervise(const Program& program) {
  static Supervisor supervisor(program);  // too large for the stack
  ProtectOwnProcess("strata-keeper");
  return supervisor.Open() ? supervisor.Run() : 1;
}

}  // namespace strata::keeper
