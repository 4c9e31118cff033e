// SPDX-License-Identifier: Apache-2.0
//
// Listening unix sockets: those that systemd passed, or one of our own. Listener owns its
// descriptor; one thread at a time.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class Listener {
 public:
  // The longest path that fits sockaddr_un (unix(7): 108 bytes with the NUL).
  static constexpr size_t kMaxPathBytes = 107;

  // Binds `path`: mode 0600, missing folders made 0700. A socket file that is there is replaced
  // only when nobody answers on it, and in one step. FailedPrecondition: somebody answers, or it is
  // no socket. InvalidArgument: relative, or too long.
  static StatusOr<Listener> Bind(const std::string& path);

  // The FailedPrecondition of Bind, found out without binding.
  static Status CheckFree(const std::string& path);

  // Only what the text of a path tells: the InvalidArgument of Bind.
  static Status CheckPath(const std::string& path);

  // The sockets that the service manager passed. InvalidArgument when one of them is not a
  // listening unix stream socket. One that an earlier process of ours had bound (Bind) is used when
  // it is still what clients reach at `path`, and closed when not; nobody removes its file.
  static StatusOr<std::vector<Listener>> FromServiceManager(std::vector<UniqueFd> passed,
                                                            const std::string& path);

  ~Listener();
  Listener(Listener&&) noexcept;
  Listener& operator=(Listener&&) = delete;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  [[nodiscard]] int fd() const { return fd_.get(); }
  // The socket has been given to somebody who keeps it: its file stays.
  void LeaveFile() { owns_file_ = false; }
  // Where it listens, for messages.
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  Listener(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  UniqueFd fd_;
  std::string path_;
  // Of the file that Bind made, so that the destructor removes that one and no other.
  bool owns_file_ = false;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace strata
