// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "services/keeper/keeper.h"
#include "services/keeper/own_process.h"

// All but Start is called by the child only, so it may allocate.
namespace strata::keeper {
namespace {

constexpr int kExitNoExec = 127;  // as a shell has it

[[noreturn]] void Fail(const char* what, const char* object) {
  SayErrno(what, object);
  ::_exit(kExitNoExec);
}

void SetNumber(const char* name, int64_t value) {
  std::array<char, 24> text{};
  (void)::snprintf(text.data(), text.size(), "%jd", intmax_t{value});
  (void)::setenv(name, text.data(), /*overwrite=*/1);
}

void PassFds(const KeptFds& all) {
  static std::array<char, KeptFds::kMost*(KeptFds::kLongestName + 1)> names;
  const auto count = static_cast<int>(all.size());
  size_t end = 0;
  std::array<int, KeptFds::kMost> moved{};
  for (size_t i = 0; i < all.size(); ++i) {
    const KeptFds::Kept& kept = all.begin()[i];
    // First out of the way: one may have the number that another is to get.
    moved[i] = ::fcntl(kept.fd, F_DUPFD_CLOEXEC, kFirstGivenFd + count);
    end += static_cast<size_t>(
        ::snprintf(&names[end], names.size() - end, "%s%s", i == 0 ? "" : ":", kept.name.data()));
  }
  for (int i = 0; i < count; ++i) {
    if (::dup2(moved[static_cast<size_t>(i)], kFirstGivenFd + i) < 0) {
      Fail("cannot pass on", "a descriptor");
    }
  }
  if (count > 0) {
    (void)::setenv("LISTEN_FDNAMES", names.data(), /*overwrite=*/1);
    SetNumber("LISTEN_FDS", count);
    SetNumber("LISTEN_PID", ::getpid());
  }
}

}  // namespace

pid_t Start(const Program& program, const KeptFds* kept, const char* notify_socket) {
  if (const pid_t pid = ::fork(); pid != 0) {
    return pid;
  }
  (void)::setsid();  // the signals of a terminal come through the keeper only
  for (const char* name : {"FDSTORE", "LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET",
                           "WATCHDOG_PID", "WATCHDOG_USEC"}) {
    (void)::unsetenv(name);
  }
  if (kept == nullptr) {
    static std::array<char, 8> check{"--check"};
    char** end = program.argv;
    while (*end != nullptr) {
      ++end;
    }
    *end = check.data();
  } else {
    (void)::setenv("NOTIFY_SOCKET", notify_socket, /*overwrite=*/1);
    SetNumber("FDSTORE", KeptFds::kMost);
    PassFds(*kept);
    if (program.watchdog_ms > 0) {
      SetNumber("WATCHDOG_USEC", program.watchdog_ms * 1000);
      SetNumber("WATCHDOG_PID", ::getpid());
    }
  }
  UnprotectChild();
  (void)::execvp(program.argv[0], program.argv);
  Fail("cannot run", program.argv[0]);
}

}  // namespace strata::keeper
