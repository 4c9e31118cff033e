// SPDX-License-Identifier: Apache-2.0
//
// strata-keeper: a service manager for one program, and the second holder. PROTOCOL.md says what
// they do. Linked statically and without allocations, so that nothing but a signal can end it.
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstring>
#include <string_view>

#include "services/keeper/keeper.h"
#include "services/keeper/own_process.h"
#include "services/version.h"

namespace strata::keeper {
namespace {

constexpr std::string_view kHelp =
    R"(strata-keeper [--pid-file FILE] [--watchdog SECONDS] [--must-start] -- PROGRAM ARGUMENTS...
  Runs PROGRAM, keeps the descriptors that it asks to keep (as systemd's FDSTORE=1), and starts it
  again with them whenever it ends.
    --pid-file FILE      written with the keeper's pid when PROGRAM is ready for the first time
    --watchdog SECONDS   PROGRAM is aborted when it says nothing for so long
    --must-start         ends with PROGRAM when that ends before it was ready for the first time
  SIGTERM and SIGINT end PROGRAM, then the keeper, with the exit code of PROGRAM. SIGHUP upgrades:
  PROGRAM ARGUMENTS... --check is run, and if that ends with 0, PROGRAM is ended and started anew.
  SIGUSR1, SIGUSR2 and SIGQUIT are passed on.
strata-keeper --hold SOCKET
  Keeps what daemons send to SOCKET until one of them tells it to end; stops at no other request.
strata-keeper --help | --version
)";

constexpr int64_t kLongestWatchdogSeconds = 86'400;
constexpr size_t kLongestPidFile = PATH_MAX - sizeof(".new");

int Print(std::string_view text) {
  return ::write(STDOUT_FILENO, text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0
                                                                                               : 1;
}

int UsageError(const char* what, const char* object) {
  Say("%s '%s' (see --help)", what, object);
  return kExitUsage;
}

// Descriptors that are kept must never be taken for the standard ones.
void FillStandardDescriptors() {
  int fd = 0;
  do {
    fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  (void)::close(fd);
}

// The watchdog in milliseconds; 0: not a number that makes sense.
int64_t ReadWatchdog(const char* text) {
  char* end = nullptr;
  const int64_t seconds = ::strtol(text, &end, 10);
  const bool valid = end != text && *end == '\0' && seconds > 0;
  return valid && seconds <= kLongestWatchdogSeconds ? seconds * 1000 : 0;
}

// Takes the options and their values; -1: go on, else the exit code.
int TakeOption(Program& program, const std::string_view option, const char* value) {
  if (option == "--help") {
    return Print(kHelp);
  }
  if (option == "--version") {
    return Print("strata-keeper ") | Print(kVersion) | Print("\n");
  }
  if (option != "--hold" && option != "--pid-file" && option != "--watchdog") {
    return UsageError("unknown argument", option.data());
  }
  if (value == nullptr || *value == '\0') {
    return UsageError("a value has to follow", option.data());
  }
  if (option == "--hold") {
    return Hold(value);
  }
  if (option == "--pid-file") {
    program.pid_file = value;
    return ::strlen(value) < kLongestPidFile ? -1 : UsageError("too long:", value);
  }
  program.watchdog_ms = ReadWatchdog(value);
  return program.watchdog_ms > 0 ? -1 : UsageError("not a number of seconds:", value);
}

int Main(char** argv) {
  Program program;
  while (*++argv != nullptr && std::string_view(*argv) != "--") {
    if (std::string_view(*argv) == "--must-start") {
      program.must_start = true;
      continue;
    }
    if (const int code = TakeOption(program, argv[0], argv[1]); code >= 0) {
      return code;
    }
    ++argv;
  }
  if (*argv == nullptr || argv[1] == nullptr) {
    return UsageError("what to run has to follow", "--");
  }
  // In the place of the "--", so that there is room for one more at the end.
  program.argv = argv;
  do {
    argv[0] = argv[1];
  } while (*argv++ != nullptr);
  if (::strchr(program.argv[0], '/') != nullptr && ::access(program.argv[0], X_OK) != 0) {
    SayErrno("cannot run", program.argv[0]);
    return kExitUsage;
  }
  return Supervise(program);
}

}  // namespace
}  // namespace strata::keeper

int main(int /*argc*/, char** argv) {
  strata::keeper::FillStandardDescriptors();
  return strata::keeper::Main(argv);
}
