// SPDX-License-Identifier: Apache-2.0
#include "services/keeper/own_process.h"

#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>

#include "snapshotters/base/unique_fd.h"

namespace strata::keeper {
namespace {

constexpr const char* kOomFile = "/proc/self/oom_score_adj";
constexpr const char* kNeverKilled = "-1000";  // OOM_SCORE_ADJ_MIN, see proc(5)

// What UnprotectChild restores.
std::array<char, 16> g_oom_before{};
sigset_t g_signals_before{};

void WriteOom(const char* score) {
  const UniqueFd file(::open(kOomFile, O_WRONLY | O_CLOEXEC));
  (void)!::write(file.get(), score, ::strlen(score));  // lowering it takes CAP_SYS_RESOURCE
}

}  // namespace

void Say(const char* format, ...) {
  // Neither dprintf(3), which allocates, nor %m, which looks for translations.
  std::array<char, 1024> line{"strata-keeper: "};
  const size_t prefix = ::strlen(line.data());
  const size_t room = line.size() - prefix - 1;
  va_list arguments;
  va_start(arguments, format);
  // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): va_start has been called
  const int size = ::vsnprintf(line.data() + prefix, room, format, arguments);
  va_end(arguments);
  const size_t end = prefix + std::min(static_cast<size_t>(std::max(size, 0)), room - 1);
  line[end] = '\n';
  pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
  if (::poll(&out, 1, 0) == 1) {
    (void)!::write(STDERR_FILENO, line.data(), end + 1);  // there is nowhere else to say it
  }
}

void SayErrno(const char* what, const char* object) {
  Say("%s '%s': %s", what, object, ::strerrordesc_np(errno));
}

void ProtectOwnProcess(const char* name) {
  (void)::prctl(PR_SET_NAME, name);
  const UniqueFd oom(::open(kOomFile, O_RDONLY | O_CLOEXEC));
  (void)!::read(oom.get(), g_oom_before.data(), g_oom_before.size() - 1);
  WriteOom(kNeverKilled);
  (void)::malloc_trim(0);  // what the C library has in stock would be locked, too
  // Needs CAP_IPC_LOCK, or a limit that is high enough; without it all else works.
  (void)::mlockall(MCL_CURRENT | MCL_FUTURE);
  // Ignored by whoever started us, it would reap our children before we could, see wait(2).
  (void)::signal(SIGCHLD, SIG_DFL);
  sigset_t all;
  (void)::sigfillset(&all);
  (void)::sigprocmask(SIG_BLOCK, &all, &g_signals_before);  // cannot fail with these arguments
}

void UnprotectChild() {
  WriteOom(g_oom_before.data());
  (void)::sigprocmask(SIG_SETMASK, &g_signals_before, nullptr);
}

}  // namespace strata::keeper
