// SPDX-License-Identifier: Apache-2.0
//
// DirectoryWalk: the way from the top of a tree to the directory in hand, by descriptor. However
// deep the tree, no path is put together for the kernel and few descriptors are open. One thread at
// a time.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/unique_fd.h"

namespace strata {

class DirectoryWalk {
 public:
  // Levels whose descriptors stay open while deeper ones are in hand. Below them only the deepest
  // is open, and the way up is "..", checked against the inode that we came from.
  static constexpr size_t kHeldLevels = 32;

  // openat(2) for reading of a directory, a symlink not followed; -1 with errno.
  using Opener = int (*)(int dirfd, const char* name);

  // `open` opens "..".
  explicit DirectoryWalk(Opener open) : open_(open) {}

  [[nodiscard]] size_t depth() const { return levels_.size(); }
  // Of the deepest level.
  [[nodiscard]] int fd() const { return levels_.back().fd.get(); }

  // `fd`, the directory `name` of the deepest level, becomes the deepest one; at depth 0 the top.
  // 0, or an errno and nothing has changed.
  [[nodiscard]] int Enter(std::string name, UniqueFd fd);

  struct Left {
    std::string name;
    UniqueFd fd;
    // Not 0: the level above could not be opened again, ESTALE when there is another directory now:
    // somebody has moved the one that was left. All levels that are reached only through it have
    // been left too; depth() is kHeldLevels.
    int error = 0;
  };
  // The deepest level is done.
  Left Leave();

  // Directories of the deepest level that are to be entered yet; the last one comes first.
  void Postpone(std::string_view name);
  std::optional<std::string> TakePostponed();

  // One that was postponed, as near to the top as may be, for somebody else to walk.
  struct Given {
    int at;  // the directory that has it; borrowed
    std::string name;
    std::string path;  // as PathOf
  };
  std::optional<Given> TakeNearTop();
  // On all levels.
  [[nodiscard]] size_t postponed() const { return postponed_; }

  // `name` of the deepest level as messages show it: from the top on.
  [[nodiscard]] std::string PathOf(std::string_view name) const;

 private:
  struct Level {
    std::string name;
    UniqueFd fd;
    dev_t device = 0;  // these two are known from kHeldLevels on
    ino_t inode = 0;
    std::vector<std::string> postponed;
  };

  [[nodiscard]] int Reopen(Level& level, int below) const;
  // `name` in the level of that index.
  [[nodiscard]] std::string PathIn(size_t deepest, std::string_view name) const;

  const Opener open_;
  std::vector<Level> levels_;
  size_t postponed_ = 0;
};

// An Opener that leaves access times alone where it may: looking at a layer does not change it.
int OpenDirectoryQuietly(int dirfd, const char* name);

}  // namespace strata
