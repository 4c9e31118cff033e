// SPDX-License-Identifier: Apache-2.0
//
// TerminalRelay: the pseudo-terminal that a runtime gets for a process with a terminal, and what
// moves between it and the user's streams. The user's own terminal is in raw mode while this lives.
// Never waits for anybody. One thread at a time.
#pragma once

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/run/executor.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

// The user's terminal among the streams of a process that gets one, and how large it is; fd -1 for
// none.
struct UserTerminal {
  int fd = -1;
  winsize size{};
};
UserTerminal FindUserTerminal(const ProcessStreams& streams);

class TerminalRelay {
 public:
  // The pty has the size of the user's terminal, if there is one.
  static StatusOr<std::unique_ptr<TerminalRelay>> Open(const ProcessStreams& streams);
  // Gives the user's terminal back as it was.
  ~TerminalRelay();
  TerminalRelay(const TerminalRelay&) = delete;
  TerminalRelay& operator=(const TerminalRelay&) = delete;

  // The program's end; ours of it has to be closed once the program has it.
  [[nodiscard]] int program_end() const { return program_.get(); }
  void CloseProgramEnd() { program_.Reset(); }

  // True when the user's terminal has another size than at the last call, which the pty now has,
  // too.
  bool TakeResize();

  // What to wait for before the next Relay.
  void AddTo(std::vector<pollfd>& wanted) const;
  // Moves all that can be moved now.
  void Relay();
  // Whether the program's end is closed and all that came from it has been written.
  [[nodiscard]] bool finished() const { return program_ended_ && to_user_.empty(); }

 private:
  // One of the user's streams, where possible by a description of its own that does not block:
  // O_NONBLOCK on theirs would be seen by all who share it.
  struct Stream {
    int fd = -1;
    UniqueFd own;
  };

  TerminalRelay() = default;
  static Stream Reopen(int fd, int flags);
  Status SetUp(const ProcessStreams& streams);
  Status SetRaw(int fd);
  void ReadInput();
  void WriteInput();
  void ReadOutput();
  void WriteOutput();

  UniqueFd ours_;
  UniqueFd program_;
  Stream in_;
  Stream out_;
  UserTerminal user_;
  std::optional<termios> before_;  // of in_
  std::string to_program_;
  std::string to_user_;
  bool input_ended_ = false;
  bool program_ended_ = false;
};

}  // namespace strata
