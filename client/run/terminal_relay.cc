// SPDX-License-Identifier: Apache-2.0
#include "client/run/terminal_relay.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

// No more than fits a pipe that poll(2) calls writable (pipe(7), PIPE_BUF).
constexpr size_t kChunkBytes = 4096;
constexpr char kEndOfInput = 4;  // ^D

bool Ready(int fd, int16_t events) {
  pollfd wanted{fd, events, 0};
  return fd >= 0 && ::poll(&wanted, 1, 0) > 0;
}

// What was read, "" for nothing now; `ended` at the end.
std::string ReadSome(int fd, bool& ended) {
  char buffer[kChunkBytes];
  const ssize_t size = ::read(fd, buffer, sizeof(buffer));
  if (size > 0) {
    return std::string(buffer, static_cast<size_t>(size));
  }
  // EIO: the last of the other ends of a pty is closed (pty(7)).
  ended = size == 0 || (errno != EAGAIN && errno != EINTR);
  return {};
}

// Removes what was written from `bytes`; all of it where nobody reads any more.
void WriteSome(int fd, std::string& bytes) {
  const ssize_t size = ::write(fd, bytes.data(), std::min(bytes.size(), kChunkBytes));
  if (size > 0) {
    bytes.erase(0, static_cast<size_t>(size));
  } else if (size < 0 && errno != EAGAIN && errno != EINTR) {
    bytes.clear();
  }
}

}  // namespace

UserTerminal FindUserTerminal(const ProcessStreams& streams) {
  for (const int fd : {streams.in, streams.out}) {
    UserTerminal found{fd, {}};
    if (streams.terminal && fd >= 0 && ::isatty(fd) == 1 &&
        ::ioctl(fd, TIOCGWINSZ, &found.size) == 0) {
      return found;
    }
  }
  return {};
}

StatusOr<std::unique_ptr<TerminalRelay>> TerminalRelay::Open(const ProcessStreams& streams) {
  auto relay = std::unique_ptr<TerminalRelay>(new TerminalRelay());
  STRATA_RETURN_IF_ERROR(relay->SetUp(streams));
  return relay;
}

TerminalRelay::Stream TerminalRelay::Reopen(int fd, int flags) {
  Stream stream{fd, UniqueFd()};
  struct stat found {};
  unsigned number = 0;
  // A file would begin anew, and the master of a pty would be another one.
  const bool can =
      fd >= 0 && ::fstat(fd, &found) == 0 &&
      (S_ISFIFO(found.st_mode) || (::isatty(fd) == 1 && ::ioctl(fd, TIOCGPTN, &number) != 0));
  if (can) {
    StatusOr<UniqueFd> own =
        OpenFile("/proc/self/fd/" + std::to_string(fd), flags | O_NONBLOCK | O_NOCTTY);
    if (own.ok()) {
      stream.own = *std::move(own);
      stream.fd = stream.own.get();
    }
  }
  return stream;
}

Status TerminalRelay::SetUp(const ProcessStreams& streams) {
  ours_ = UniqueFd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  char name[64];
  if (!ours_.valid() || ::unlockpt(ours_.get()) != 0 ||
      ::ptsname_r(ours_.get(), name, sizeof(name)) != 0) {
    return ErrnoStatus(errno, "open a pseudo-terminal");
  }
  STRATA_ASSIGN_OR_RETURN(program_, OpenFile(name, O_RDWR | O_NOCTTY));
  const int flags = ::fcntl(ours_.get(), F_GETFL);
  if (flags < 0 || ::fcntl(ours_.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "set up a pseudo-terminal");
  }
  // The process has a pty of its own behind the runtime, which edits lines and echoes.
  termios raw{};
  if (::tcgetattr(program_.get(), &raw) != 0) {
    return ErrnoStatus(errno, "set up a pseudo-terminal");
  }
  ::cfmakeraw(&raw);
  if (::tcsetattr(program_.get(), TCSANOW, &raw) != 0) {
    return ErrnoStatus(errno, "set up a pseudo-terminal");
  }
  user_ = FindUserTerminal(streams);
  if (user_.fd >= 0 && ::ioctl(ours_.get(), TIOCSWINSZ, &user_.size) != 0) {
    return ErrnoStatus(errno, "set up a pseudo-terminal");
  }
  in_ = Reopen(streams.in, O_RDONLY);
  out_ = Reopen(streams.out, O_WRONLY);
  input_ended_ = streams.in < 0;
  return streams.in >= 0 && ::isatty(streams.in) == 1 ? SetRaw(streams.in) : OkStatus();
}

Status TerminalRelay::SetRaw(int fd) {
  termios mode{};
  if (::tcgetattr(fd, &mode) != 0) {
    return ErrnoStatus(errno, "read the mode of the terminal");
  }
  termios raw = mode;
  ::cfmakeraw(&raw);
  before_ = mode;
  if (::tcsetattr(fd, TCSANOW, &raw) != 0) {
    return ErrnoStatus(errno, "set the terminal raw");
  }
  return OkStatus();
}

TerminalRelay::~TerminalRelay() {
  if (before_.has_value()) {
    (void)::tcsetattr(in_.fd, TCSANOW, &*before_);  // a terminal that has hung up needs none
  }
}

bool TerminalRelay::TakeResize() {
  winsize now{};
  if (user_.fd < 0 || ::ioctl(user_.fd, TIOCGWINSZ, &now) != 0 ||
      (now.ws_row == user_.size.ws_row && now.ws_col == user_.size.ws_col)) {
    return false;
  }
  user_.size = now;
  return ::ioctl(ours_.get(), TIOCSWINSZ, &now) == 0;
}

void TerminalRelay::AddTo(std::vector<pollfd>& wanted) const {
  if (!input_ended_ && to_program_.empty()) {
    wanted.push_back({in_.fd, POLLIN, 0});
  }
  if (!program_ended_) {
    int events = to_user_.empty() ? POLLIN : 0;
    events |= to_program_.empty() ? 0 : POLLOUT;
    if (events != 0) {
      wanted.push_back({ours_.get(), static_cast<int16_t>(events), 0});
    }
  }
  if (!to_user_.empty()) {
    wanted.push_back({out_.fd, POLLOUT, 0});
  }
}

void TerminalRelay::ReadInput() {
  if (input_ended_ || !to_program_.empty() || !Ready(in_.fd, POLLIN)) {
    return;
  }
  to_program_ = ReadSome(in_.fd, input_ended_);
  if (input_ended_) {
    to_program_ = kEndOfInput;
  }
}

void TerminalRelay::WriteInput() {
  if (!to_program_.empty() && Ready(ours_.get(), POLLOUT)) {
    WriteSome(ours_.get(), to_program_);
  }
}

void TerminalRelay::ReadOutput() {
  if (!program_ended_ && to_user_.empty()) {
    to_user_ = ReadSome(ours_.get(), program_ended_);
  }
}

void TerminalRelay::WriteOutput() {
  if (to_user_.empty()) {
    return;
  }
  if (out_.fd < 0) {
    to_user_.clear();
  } else if (Ready(out_.fd, POLLOUT)) {
    WriteSome(out_.fd, to_user_);
  }
}

void TerminalRelay::Relay() {
  ReadInput();
  WriteInput();
  ReadOutput();
  WriteOutput();
}

}  // namespace strata
