// SPDX-License-Identifier: Apache-2.0
//
// ContainerRoot: a container's root file system, looked at from outside. Paths mean what they mean
// to the container, symlinks included, and never lead out of it. Safe from any thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

// `path` as an absolute one without "." and "..", and without a '/' at its end: "" is "/". By
// words alone, no symlink is looked at.
std::string CleanPath(std::string_view path);

class ContainerRoot {
 public:
  static StatusOr<ContainerRoot> Open(const std::string& directory);

  // openat2(2) with RESOLVE_IN_ROOT (Linux 5.6). Errors name the path.
  [[nodiscard]] StatusOr<UniqueFd> OpenInside(std::string_view path, int flags) const;

  // The directory that the last component of `path` is in, whatever that component is, and its
  // name. InvalidArgument for "/".
  struct Place {
    UniqueFd directory;  // for reading
    std::string name;
  };
  [[nodiscard]] StatusOr<Place> OpenParent(std::string_view path) const;

  // Nothing when it is not there; FailedPrecondition when it is no regular file (a device is not
  // even opened) or has more than `limit` bytes.
  [[nodiscard]] StatusOr<std::optional<std::string>> ReadFile(std::string_view path,
                                                              size_t limit) const;

 private:
  explicit ContainerRoot(UniqueFd top) : top_(std::move(top)) {}

  UniqueFd top_;
};

// The directory that a process starts in: made, with what is missing of its parents, mode 0755 and
// for this owner. FailedPrecondition "working dir X points to invalid target" when a file, or a
// symlink to nowhere, is in its place.
Status MakeWorkingDirectory(const ContainerRoot& root, std::string_view path, uid_t uid, gid_t gid);

}  // namespace strata
