// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/disk_usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "snapshotters/base/unique_fd.h"

namespace strata {
namespace {

constexpr size_t kReadBytes = size_t{32} * 1024;
constexpr int64_t kBlockBytes = 512;  // the unit of st_blocks, whatever the file system's is
// Levels whose descriptors stay open while deeper ones are read. Below them only the deepest is
// open, and the way up is "..", checked against the inode that we came from.
constexpr size_t kHeldLevels = 32;
constexpr unsigned kStatMask = STATX_TYPE | STATX_NLINK | STATX_INO | STATX_BLOCKS;

bool Vanished(int error) {
  return error == ENOENT || error == ESTALE;
}

uint64_t DeviceOf(const struct statx& stat) {
  return uint64_t{stat.stx_dev_major} << 32 | stat.stx_dev_minor;
}

struct LinkedInode {
  uint64_t device = 0;
  uint64_t number = 0;

  bool operator==(const LinkedInode&) const = default;
};

struct LinkedInodeHash {
  size_t operator()(const LinkedInode& inode) const {
    return std::hash<uint64_t>{}(inode.number ^ inode.device << 48);
  }
};

// O_NOATIME: looking at a layer does not change it. Only the owner and CAP_FOWNER may.
int OpenDirectory(int dirfd, const char* name) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  const int fd = ::openat(dirfd, name, kFlags | O_NOATIME);
  return fd < 0 && errno == EPERM ? ::openat(dirfd, name, kFlags) : fd;
}

class UsageWalk {
 public:
  UsageWalk(const CallContext& call, int root) : call_(call), root_(root) {}

  StatusOr<Usage> Run();

 private:
  struct Level {
    std::string name;
    UniqueFd fd;         // of the top level: only where `root_` could not be read itself
    uint64_t inode = 0;  // known below kHeldLevels
    std::vector<std::string> pending;  // directories to enter yet
  };

  Status ReadTop();
  Status ReadEntries(int fd);
  Status CountEntry(int fd, const char* name);
  Status Enter();
  void Leave();
  // Adds it; false for what is on another mount.
  bool Count(const struct statx& stat);
  Status Failed(int error, std::string_view verb, std::string_view name) const;

  const CallContext& call_;
  const int root_;
  uint64_t device_ = 0;
  Usage usage_;
  std::vector<Level> levels_;
  std::unordered_set<LinkedInode, LinkedInodeHash> linked_;  // seen ones with several links
};

Status UsageWalk::Failed(int error, std::string_view verb, std::string_view name) const {
  std::string path;
  for (const Level& level : levels_) {
    path += level.name;
    path += level.name.empty() ? "" : "/";
  }
  path += name;
  return ErrnoStatus(error, std::string(verb) + " " + ShowName(path));
}

bool UsageWalk::Count(const struct statx& stat) {
  const bool is_directory = S_ISDIR(stat.stx_mode);
  const LinkedInode inode{DeviceOf(stat), stat.stx_ino};
  // The attribute (Linux 5.8) tells binds of the same device too. Only directories are held to the
  // device: in an overlay over several file systems other entries show devices of their own.
  if ((is_directory && inode.device != device_) ||
      (stat.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0) {
    return false;
  }
  if (!is_directory && stat.stx_nlink > 1 && !linked_.insert(inode).second) {
    return true;
  }
  usage_.size += static_cast<int64_t>(stat.stx_blocks) * kBlockBytes;
  ++usage_.inodes;
  return true;
}

Status UsageWalk::CountEntry(int fd, const char* name) {
  struct statx stat {};
  if (::statx(fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, kStatMask, &stat) != 0) {
    return Vanished(errno) ? OkStatus() : Failed(errno, "stat", name);
  }
  if (Count(stat) && S_ISDIR(stat.stx_mode)) {
    levels_.back().pending.emplace_back(name);
  }
  return OkStatus();
}

Status UsageWalk::ReadEntries(int fd) {
  alignas(dirent64) char buffer[kReadBytes];
  while (true) {
    const ssize_t count = ::getdents64(fd, buffer, sizeof(buffer));
    if (count < 0) {
      return Vanished(errno) ? OkStatus() : Failed(errno, "read directory", ".");
    }
    if (count == 0) {
      return OkStatus();
    }
    for (ssize_t offset = 0; offset < count;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer + offset);
      offset += entry->d_reclen;
      const std::string_view name(entry->d_name);
      if (name == "." || name == "..") {
        continue;
      }
      STRATA_RETURN_IF_ERROR(call_.Check());
      STRATA_RETURN_IF_ERROR(CountEntry(fd, entry->d_name));
    }
  }
}

Status UsageWalk::ReadTop() {
  struct statx stat {};
  if (::statx(root_, "", AT_EMPTY_PATH, kStatMask, &stat) != 0) {
    return Failed(errno, "stat", ".");
  }
  device_ = DeviceOf(stat);
  stat.stx_attributes = 0;  // the top may well be the root of a mount
  (void)Count(stat);        // it is on its own device
  levels_.emplace_back();
  // EBADF: O_PATH descriptors can neither seek nor read.
  if (::lseek(root_, 0, SEEK_SET) == 0) {
    return ReadEntries(root_);
  }
  Level& top = levels_.back();
  top.fd = UniqueFd(OpenDirectory(root_, "."));
  return top.fd.valid() ? ReadEntries(top.fd.get()) : Failed(errno, "open directory", ".");
}

Status UsageWalk::Enter() {
  Level& parent = levels_.back();
  Level child;
  child.name = std::move(parent.pending.back());
  parent.pending.pop_back();
  const int at = levels_.size() == 1 ? root_ : parent.fd.get();
  child.fd = UniqueFd(OpenDirectory(at, child.name.c_str()));
  if (!child.fd.valid()) {
    const bool replaced = errno == ENOTDIR || errno == ELOOP;
    return replaced || Vanished(errno) ? OkStatus() : Failed(errno, "open directory", child.name);
  }
  if (levels_.size() >= kHeldLevels) {
    struct stat stat {};
    if (::fstat(child.fd.get(), &stat) != 0) {
      return Failed(errno, "stat", child.name);
    }
    child.inode = stat.st_ino;
  }
  if (levels_.size() > kHeldLevels) {
    parent.fd.Reset();
  }
  const int fd = child.fd.get();
  levels_.push_back(std::move(child));
  return ReadEntries(fd);
}

void UsageWalk::Leave() {
  const UniqueFd left = std::move(levels_.back().fd);
  levels_.pop_back();
  if (levels_.size() <= kHeldLevels) {
    return;
  }
  Level& parent = levels_.back();
  parent.fd = UniqueFd(OpenDirectory(left.get(), ".."));
  struct stat stat {};
  if (parent.fd.valid() && ::fstat(parent.fd.get(), &stat) == 0 && stat.st_ino == parent.inode) {
    return;
  }
  // Somebody has moved or removed the directory that was read: what is left of the levels that are
  // reached only through it counts as vanished.
  levels_.resize(kHeldLevels);
}

StatusOr<Usage> UsageWalk::Run() {
  STRATA_RETURN_IF_ERROR(call_.Check());
  STRATA_RETURN_IF_ERROR(ReadTop());
  while (!levels_.empty()) {
    if (levels_.back().pending.empty()) {
      Leave();
    } else {
      STRATA_RETURN_IF_ERROR(Enter());
    }
  }
  return usage_;
}

}  // namespace

StatusOr<Usage> DiskUsage(const CallContext& call, int dirfd) {
  return UsageWalk(call, dirfd).Run();
}

}  // namespace strata
