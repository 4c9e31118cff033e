// SPDX-License-Identifier: Apache-2.0
//
// ChildProcess: one program that we started, in a session of its own, so that the keys of our
// terminal do not reach it and it may read from that terminal all the same. It is killed when the
// thread that started it ends (PR_SET_PDEATHSIG), also by SIGKILL. One thread at a time; Signal
// from any.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

struct Command {
  std::vector<std::string> arguments;  // the first is the path of the program
  // Not owned; -1: /dev/null.
  int in = -1;
  int out = -1;
  int err = -1;
};

class ChildProcess {
 public:
  // Ours, but for what belongs to a service: its notification socket and its descriptors. The error
  // is that of fork(2) or execve(2).
  static StatusOr<ChildProcess> Start(const Command& command);
  // One that runs still is killed, and waited for as long as a kill takes.
  ~ChildProcess();
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) = delete;
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Readable once it has ended.
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  // NotFound once it has ended.
  [[nodiscard]] Status Signal(int signal) const;

  // What it ended with: its exit code, or 255 when it has none (killed, or waited for by somebody
  // else in this process). Nothing when `limit` has passed.
  std::optional<int> Wait(std::chrono::milliseconds limit);

 private:
  explicit ChildProcess(UniqueFd pidfd) : pidfd_(std::move(pidfd)) {}

  UniqueFd pidfd_;
  std::optional<int> code_;
};

}  // namespace strata
