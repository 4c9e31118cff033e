// SPDX-License-Identifier: Apache-2.0
//
// SignalRelay: the signals of this process as calls of a function, on a thread of its own. By
// handlers and a pipe, not by blocking: what is blocked or ignored stays so over an execve(2), and
// containers would inherit it. One at a time in a process.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class SignalRelay {
 public:
  // SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2 and SIGWINCH; SIGPIPE is caught and dropped.
  static StatusOr<std::unique_ptr<SignalRelay>> Start(std::function<void(int signal)> on_signal);
  // The signals do again what they did before.
  ~SignalRelay();
  SignalRelay(const SignalRelay&) = delete;
  SignalRelay& operator=(const SignalRelay&) = delete;

 private:
  SignalRelay(std::function<void(int)> on_signal, UniqueFd reader, UniqueFd writer);

  const std::function<void(int)> on_signal_;
  const UniqueFd reader_;
  const UniqueFd writer_;
  std::thread thread_;
};

}  // namespace strata
