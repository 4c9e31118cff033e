// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/directory_walk.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

namespace strata {

int DirectoryWalk::Enter(std::string name, UniqueFd fd) {
  Level level;
  if (levels_.size() >= kHeldLevels) {
    struct stat stat {};
    if (::fstat(fd.get(), &stat) != 0) {
      return errno;
    }
    level.device = stat.st_dev;
    level.inode = stat.st_ino;
  }
  if (levels_.size() > kHeldLevels) {
    levels_.back().fd.Reset();
  }
  level.name = std::move(name);
  level.fd = std::move(fd);
  levels_.push_back(std::move(level));
  return 0;
}

DirectoryWalk::Left DirectoryWalk::Leave() {
  Left left{.name = std::move(levels_.back().name), .fd = std::move(levels_.back().fd)};
  postponed_ -= levels_.back().postponed.size();
  levels_.pop_back();
  if (levels_.size() > kHeldLevels) {
    left.error = Reopen(levels_.back(), left.fd.get());
    while (left.error != 0 && levels_.size() > kHeldLevels) {
      postponed_ -= levels_.back().postponed.size();
      levels_.pop_back();
    }
  }
  return left;
}

int DirectoryWalk::Reopen(Level& level, int below) const {
  level.fd = UniqueFd(open_(below, ".."));
  struct stat stat {};
  if (!level.fd.valid() || ::fstat(level.fd.get(), &stat) != 0) {
    return errno;
  }
  return stat.st_dev == level.device && stat.st_ino == level.inode ? 0 : ESTALE;
}

void DirectoryWalk::Postpone(std::string_view name) {
  levels_.back().postponed.emplace_back(name);
  ++postponed_;
}

std::optional<std::string> DirectoryWalk::TakePostponed() {
  std::vector<std::string>& postponed = levels_.back().postponed;
  if (postponed.empty()) {
    return std::nullopt;
  }
  std::string name = std::move(postponed.back());
  postponed.pop_back();
  --postponed_;
  return name;
}

std::optional<DirectoryWalk::Given> DirectoryWalk::TakeNearTop() {
  for (size_t i = 0; i < levels_.size(); ++i) {
    Level& level = levels_[i];
    if (level.fd.valid() && !level.postponed.empty()) {
      std::string name = std::move(level.postponed.back());
      level.postponed.pop_back();
      --postponed_;
      std::string path = PathIn(i, name);
      return Given{.at = level.fd.get(), .name = std::move(name), .path = std::move(path)};
    }
  }
  return std::nullopt;
}

std::string DirectoryWalk::PathOf(std::string_view name) const {
  return PathIn(levels_.size(), name);
}

std::string DirectoryWalk::PathIn(size_t deepest, std::string_view name) const {
  std::string path;
  const auto append = [&path](std::string_view part) {
    if (!part.empty()) {
      path += path.empty() ? "" : "/";
      path += part;
    }
  };
  for (size_t i = 0; i < levels_.size() && i <= deepest; ++i) {
    append(levels_[i].name);
  }
  append(name);
  return path.empty() ? "." : path;
}

// O_NOATIME is for the owner and CAP_FOWNER only.
int OpenDirectoryQuietly(int dirfd, const char* name) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  const int fd = ::openat(dirfd, name, kFlags | O_NOATIME);
  return fd < 0 && errno == EPERM ? ::openat(dirfd, name, kFlags) : fd;
}

}  // namespace strata
