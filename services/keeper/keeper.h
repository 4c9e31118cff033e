// SPDX-License-Identifier: Apache-2.0
//
// The two processes that strata-keeper can be, and how a program is started. One thread only.
#pragma once

#include <cstdint>

#include "services/keeper/kept_fds.h"

namespace strata::keeper {

inline constexpr int kExitUsage = 2;
inline constexpr int kFirstGivenFd = 3;  // SD_LISTEN_FDS_START

struct Program {
  char** argv = nullptr;  // ends with two nulls: there is room for --check
  const char* pid_file = nullptr;
  int64_t watchdog_ms = 0;  // 0: none
  bool must_start = false;  // it is not started again as long as it was never ready
};

// Starts it as a service manager does, in a session of its own. Without `kept` it is a check only,
// and has nobody to notify. Its pid, or -1 with errno; what fails later ends the child.
pid_t Start(const Program& program, const KeptFds* kept, const char* notify_socket);

// Keeps `program` running, and its descriptors, until SIGTERM or SIGINT. The exit code: that of the
// program, or 128 and the signal that ended it.
int Supervise(const Program& program);

// The second holder: serves on a socket at `path`, in place of whoever did before, until it is told
// to end. The exit code.
int Hold(const char* path);

}  // namespace strata::keeper
