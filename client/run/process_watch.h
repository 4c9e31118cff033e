// SPDX-License-Identifier: Apache-2.0
//
// ProcessWatch: one runtime command from its start to its end: when its process begins to run, what
// moves between terminals, signals that are passed on, and the end that a cancelled call makes of
// it. Watch belongs to one thread, Forward may be called from any.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "client/run/child_process.h"
#include "client/run/terminal_relay.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/call_context.h"

namespace strata {

struct WatchedProcess {
  std::string pid_file;  // written by the runtime when the process runs
  // Called once with its pid.
  std::function<void(int pid)> started;
  // One attempt to kill the process, not the runtime; takes no longer than the limit.
  std::function<Status(std::chrono::milliseconds limit)> kill;
};

struct WatchResult {
  int code = 0;
  bool started = false;  // the process has run
};

class ProcessWatch {
 public:
  // `terminal` may be null.
  static StatusOr<std::unique_ptr<ProcessWatch>> Create(ChildProcess child,
                                                        std::unique_ptr<TerminalRelay> terminal);

  // Until the runtime ends. Cancelled, with the process killed, or the runtime where even that does
  // not end within 7 seconds; DeadlineExceeded when the process has not begun within two minutes.
  StatusOr<WatchResult> Watch(CallContext& call, const WatchedProcess& process);

  // To the runtime, which gives it to the process. SIGKILL would end the runtime alone and is not
  // passed on.
  void Forward(int signal);

 private:
  ProcessWatch(ChildProcess child, std::unique_ptr<TerminalRelay> terminal, UniqueFd wake)
      : terminal_(std::move(terminal)), wake_(std::move(wake)), child_(std::move(child)) {}

  // One round of waiting and relaying; true when the runtime has ended.
  bool Step(std::chrono::milliseconds limit);
  void KillAll(const WatchedProcess& process);
  void FinishRelay();

  std::unique_ptr<TerminalRelay> terminal_;
  UniqueFd wake_;
  ChildProcess child_;  // is ended before the terminal goes
};

// The number in a pid file, 0 while it is not there or not complete.
int ReadPidFile(const std::string& path);

}  // namespace strata
