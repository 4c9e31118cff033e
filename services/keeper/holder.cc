// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>

#include "services/keeper/keeper.h"
#include "services/keeper/kept_fds.h"
#include "services/keeper/own_process.h"
#include "snapshotters/base/unique_fd.h"

namespace strata::keeper {
namespace {

// What a service manager does to the session or process group of the daemon is not for us. Who
// leads a group can only leave it by a fork; its starter then sees a success.
void LeaveSession() {
  if (::setsid() < 0 && ::getsid(0) != ::getpid() && ::fork() > 0) {
    ::_exit(0);
  }
  (void)::setsid();  // done, or cannot fail
}

void GiveAll(const KeptFds& all, int peer) {
  for (const KeptFds::Kept& kept : all) {
    if (!SendWithFd(peer, kept.name.data(), kept.fd)) {
      return;  // without the end, the asker knows that it has not got all
    }
  }
  (void)SendWithFd(peer, ".", -1);  // one that has gone needs nothing
}

// systemd ends a machine by a SIGTERM to everybody, and then waits 90 s for those who have not
// gone.
bool MachineGoesDown() {
  constexpr std::string_view kShutdown = "systemd-shutdow";  // as comm has it, proc(5)
  std::array<char, kShutdown.size()> name{};
  const UniqueFd file(::open("/proc/1/comm", O_RDONLY | O_CLOEXEC));
  return ::read(file.get(), name.data(), name.size()) == static_cast<ssize_t>(name.size()) &&
         kShutdown == std::string_view(name.data(), name.size());
}

void ServeUntilToldToEnd(int socket) {
  static KeptFds kept;  // too large for the stack
  static Message message;
  sigset_t term;
  (void)::sigemptyset(&term);
  (void)::sigaddset(&term, SIGTERM);
  const UniqueFd signals(::signalfd(-1, &term, SFD_CLOEXEC | SFD_NONBLOCK));
  while (true) {
    std::array<pollfd, 2> sources = {
        {{.fd = socket, .events = POLLIN}, {.fd = signals.get(), .events = POLLIN}}};
    (void)::poll(sources.data(), sources.size(), -1);  // whatever it says: all is looked at
    signalfd_siginfo signal{};
    if (::read(signals.get(), &signal, sizeof(signal)) == sizeof(signal) && MachineGoesDown()) {
      return;
    }
    while (message.Receive(socket, /*sender=*/0, ::geteuid())) {
      if (message.Says("FDEND=1")) {
        return;
      }
      if (message.Says("FDGET=1")) {
        const UniqueFd peer(message.TakeFd());
        GiveAll(kept, peer.get());
      }
      kept.Apply(message);
    }
  }
}

}  // namespace

int Hold(const char* path) {
  (void)::close_range(STDERR_FILENO + 1, ~0U, 0);
  LeaveSession();
  ProtectOwnProcess("strata-holder");
  // From within its folder: a path may be longer than an address.
  const std::string_view whole = path;
  const size_t folder = whole.rfind('/') + 1;  // 0: the one that we are in
  const char* name = path + folder;
  std::array<char, PATH_MAX> folder_path{"."};
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  if (*name == '\0' || whole.size() - folder >= sizeof(address.sun_path) ||
      folder >= folder_path.size()) {
    Say("'%s' cannot be the name of a socket", path);
    return kExitUsage;
  }
  (void)whole.copy(folder_path.data(), folder);
  (void)std::string_view(name).copy(address.sun_path, sizeof(address.sun_path) - 1);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  struct stat bound {};
  if (::chdir(folder_path.data()) != 0) {
    SayErrno("cannot go to", folder_path.data());
    return 1;
  }
  (void)::unlink(name);  // of one that is dead or hangs; bind says what else is wrong
  (void)::umask(0177);
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0 ||
      ::bind(socket.get(), generic, sizeof(address)) != 0 || ::lstat(name, &bound) != 0) {
    SayErrno("cannot hold at", name);
    return 1;
  }
  // Who waits for the end of a pipe shall not wait for ours.
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    (void)::dup2(null.get(), fd);
  }
  ServeUntilToldToEnd(socket.get());
  struct stat now {};
  if (::lstat(name, &now) == 0 && now.st_dev == bound.st_dev && now.st_ino == bound.st_ino) {
    (void)::unlink(name);
  }
  return 0;
}

}  // namespace strata::keeper
