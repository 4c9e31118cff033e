// SPDX-License-Identifier: Apache-2.0
//
// The descriptors that are kept, and the messages that say what to do with them (PROTOCOL.md).
// Nothing here allocates or waits. One thread only.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

namespace strata::keeper {

// One datagram. What it carries is closed with CloseFds, or by the next Receive.
class Message {
 public:
  // The next one in `socket` (which has SO_PASSCRED); false: there is none. One that is neither
  // root's, nor of the process `sender`, nor of `user`, or that is malformed, is left empty.
  bool Receive(int socket, pid_t sender, uid_t user);
  // What follows `key` on the line that begins with it.
  [[nodiscard]] std::optional<std::string_view> Value(std::string_view key) const;
  [[nodiscard]] bool Says(std::string_view line) const { return Value(line) == ""; }
  // The next descriptor, which is then the caller's; -1: there are no more.
  int TakeFd() { return next_fd_ < fd_count_ ? fds_[next_fd_++] : -1; }
  void CloseFds();

 private:
  static constexpr size_t kMostFds = 253;       // SCM_MAX_FD, unix(7)
  static constexpr size_t kLongestText = 4096;  // as systemd has it
  std::array<char, kLongestText> text_{};
  size_t size_ = 0;
  std::array<int, kMostFds> fds_{};
  size_t fd_count_ = 0;
  size_t next_fd_ = 0;
};

class KeptFds {
 public:
  static constexpr size_t kMost = 64;
  static constexpr size_t kLongestName = 255;  // FDNAME_MAX of systemd
  struct Kept {
    int fd;
    bool pinned;
    std::array<char, kLongestName + 1> name;
  };

  // Takes `fd`. One that is refused is closed: when there are kMost, or when the name has the same
  // open file already. What is pinned stays when its name is removed.
  void Keep(std::string_view name, int fd, bool pinned);
  // Does what FDSTORE, FDSTOREREMOVE and BARRIER ask for.
  void Apply(Message& message);

  [[nodiscard]] const Kept* begin() const { return kept_.data(); }
  [[nodiscard]] const Kept* end() const { return kept_.data() + size_; }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  void Remove(std::string_view name);

  std::array<Kept, kMost> kept_{};
  size_t size_ = 0;
};

// Sends `text`, with a descriptor unless that is -1.
bool SendWithFd(int socket, std::string_view text, int fd);

}  // namespace strata::keeper
