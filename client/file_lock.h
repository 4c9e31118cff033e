// SPDX-License-Identifier: Apache-2.0
//
// FileLock: a lock on a small file of our own, by which processes tell one another what they use.
// It ends with its process, however that ends: an open file description lock (fcntl(2),
// F_OFD_SETLK), because unlike flock(2) those can be looked at without being taken. Used by one
// thread at a time.
#pragma once

#include <optional>
#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class FileLock {
 public:
  enum class Mode { kShared, kExclusive };

  // The lock on file `name` of the directory, made when missing. Nothing: somebody else, perhaps in
  // this process, has one that excludes it.
  static StatusOr<std::optional<FileLock>> Try(int dirfd, const std::string& name, Mode mode);
  // The same of a file that is there; nothing, too, when it is not.
  static StatusOr<std::optional<FileLock>> TryExisting(int dirfd, const std::string& name,
                                                       Mode mode);
  // Whether anybody has a lock on it; false when there is no such file.
  static StatusOr<bool> IsLocked(int dirfd, const std::string& name);

  // Removes the file, `name` of the same directory, and gives up the lock. A file that others have
  // a lock on stays.
  void Remove(int dirfd, const std::string& name);

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
  static StatusOr<std::optional<FileLock>> TryOpen(int dirfd, const std::string& name, Mode mode,
                                                   int flags);

  UniqueFd fd_;
};

}  // namespace strata
