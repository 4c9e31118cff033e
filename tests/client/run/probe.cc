// SPDX-License-Identifier: Apache-2.0
//
// The only program in the root file system of the tests' containers, linked statically: does what
// its first argument says and prints what it finds.
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

volatile sig_atomic_t g_signal = 0;

void Note(int signal) {
  g_signal = signal;
}

void Say(const std::string& text) {
  (void)!::write(STDOUT_FILENO, text.data(), text.size());
}

int SayFile(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    Say(std::string(strerrorname_np(errno)) + "\n");
    return 1;
  }
  char buffer[4096];
  for (ssize_t size = 0; (size = ::read(fd, buffer, sizeof(buffer))) > 0;) {
    Say(std::string(buffer, static_cast<size_t>(size)));
  }
  return 0;
}

int SayStat(const char* path) {
  struct stat found {};
  if (::lstat(path, &found) != 0) {
    Say(std::string(strerrorname_np(errno)) + "\n");
    return 1;
  }
  char line[128];
  (void)std::snprintf(line, sizeof(line), "%o %u:%u\n", found.st_mode, found.st_uid, found.st_gid);
  Say(line);
  return 0;
}

int SayIds() {
  gid_t groups[64];
  const int count = ::getgroups(64, groups);
  std::string line = std::to_string(::getuid()) + ":" + std::to_string(::getgid());
  for (int i = 0; i < count; ++i) {
    line += " " + std::to_string(groups[i]);
  }
  Say(line + "\n");
  return 0;
}

std::string Outcome(bool succeeded) {
  return succeeded ? "ok" : strerrorname_np(errno);
}

int SaySystemCalls() {
  std::string text = "mount " + Outcome(::mount("none", "/", "tmpfs", 0, nullptr) == 0);
  text += " keyctl " + Outcome(::syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, -3, 0) >= 0);
  text += " unshare " + Outcome(::unshare(CLONE_NEWUSER) == 0);
  text += " clone3 " + Outcome(::syscall(SYS_clone3, nullptr, 0) == 0);
  text += " vsock " + Outcome(::socket(40, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0);
  text += " inet " + Outcome(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0);
  Say(text + "\n");
  return 0;
}

int SayTerminal() {
  winsize size{};
  if (::ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0) {
    Say("no terminal\n");
    return 1;
  }
  const int controlling = ::open("/dev/tty", O_RDWR | O_CLOEXEC);
  Say(std::to_string(size.ws_row) + "x" + std::to_string(size.ws_col) +
      (controlling < 0 ? " foreign" : " controlling") + "\n");
  return 0;
}

// Says what comes, and takes its number for an exit code.
int AwaitSignal() {
  sigset_t all;
  sigset_t none;
  (void)::sigfillset(&all);
  (void)::sigemptyset(&none);
  (void)::sigprocmask(SIG_SETMASK, &all, nullptr);
  struct sigaction action {};
  action.sa_handler = Note;
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGWINCH}) {
    (void)::sigaction(signal, &action, nullptr);
  }
  Say("ready\n");
  while (g_signal == 0) {
    (void)::sigsuspend(&none);
  }
  Say(std::string("SIG") + sigabbrev_np(g_signal) + "\n");
  return g_signal;
}

int Echo() {
  char buffer[4096];
  for (ssize_t size = 0; (size = ::read(STDIN_FILENO, buffer, sizeof(buffer))) > 0;) {
    Say(std::string(buffer, static_cast<size_t>(size)));
  }
  return 0;
}

int Write(const char* path, const char* text) {
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) {
    Say(std::string(strerrorname_np(errno)) + "\n");
    return 1;
  }
  return ::write(fd, text, std::strlen(text)) < 0 ? 1 : 0;
}

int Do(std::string_view what, const std::vector<const char*>& arguments) {
  const auto argument = [&](size_t i) { return i < arguments.size() ? arguments[i] : ""; };
  if (what == "exit") {
    return std::atoi(argument(0));
  }
  if (what == "echo") {
    return Echo();
  }
  if (what == "error") {
    (void)!::write(STDERR_FILENO, "complaint\n", 10);
    return 0;
  }
  if (what == "env") {
    const char* value = std::getenv(argument(0));
    Say(std::string(value == nullptr ? "unset" : value) + "\n");
    return 0;
  }
  if (what == "cwd") {
    char path[4096];
    Say(std::string(::getcwd(path, sizeof(path)) == nullptr ? "none" : path) + "\n");
    return 0;
  }
  if (what == "hostname") {
    char name[256] = {};
    (void)::gethostname(name, sizeof(name) - 1);
    Say(std::string(name) + "\n");
    return 0;
  }
  if (what == "id") {
    return SayIds();
  }
  if (what == "read") {
    return SayFile(argument(0));
  }
  if (what == "stat") {
    return SayStat(argument(0));
  }
  if (what == "write") {
    return Write(argument(0), argument(1));
  }
  if (what == "system-calls") {
    return SaySystemCalls();
  }
  // These two stay until the end of the input.
  if (what == "terminal") {
    return SayTerminal() == 0 ? Echo() : 1;
  }
  if (what == "resize") {
    (void)AwaitSignal();
    return SayTerminal() == 0 ? Echo() : 1;
  }
  if (what == "await-signal") {
    return AwaitSignal();
  }
  Say("unknown: " + std::string(what) + "\n");
  return 125;
}

}  // namespace

int main(int argc, char** argv) {
  return argc < 2 ? 125 : Do(argv[1], std::vector<const char*>(argv + 2, argv + argc));
}
