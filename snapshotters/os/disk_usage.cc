// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/disk_usage.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/directory_walk.h"

namespace strata {
namespace {

constexpr int64_t kBlockBytes = 512;  // the unit of st_blocks, whatever the file system's is
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

class UsageWalk {
 public:
  explicit UsageWalk(const CallContext& call) : call_(call) {}

  StatusOr<Usage> Run(int root);

 private:
  Status EnterTop(int root);
  Status Enter(const std::string& name);
  Status CountEntries();
  Status CountEntry(const char* name);
  // Adds it; false for what is on another mount.
  bool Count(const struct statx& stat);
  Status Failed(int error, std::string_view verb, std::string_view name) const {
    return ErrnoStatus(error, std::string(verb) + " " + ShowName(walk_.PathOf(name)));
  }

  const CallContext& call_;
  uint64_t device_ = 0;
  Usage usage_;
  DirectoryWalk walk_{OpenDirectoryQuietly};
  std::unordered_set<LinkedInode, LinkedInodeHash> linked_;  // seen ones with several links
};

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

Status UsageWalk::CountEntry(const char* name) {
  struct statx stat {};
  if (::statx(walk_.fd(), name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, kStatMask, &stat) != 0) {
    return Vanished(errno) ? OkStatus() : Failed(errno, "stat", name);
  }
  if (Count(stat) && S_ISDIR(stat.stx_mode)) {
    walk_.Postpone(name);
  }
  return OkStatus();
}

Status UsageWalk::CountEntries() {
  EntryReader entries(walk_.fd());
  while (const dirent64* entry = entries.Next()) {
    STRATA_RETURN_IF_ERROR(call_.Check());
    STRATA_RETURN_IF_ERROR(CountEntry(entry->d_name));
  }
  const bool ended = entries.error() == 0 || Vanished(entries.error());
  return ended ? OkStatus() : Failed(entries.error(), "read directory", "");
}

Status UsageWalk::EnterTop(int root) {
  struct statx stat {};
  if (::statx(root, "", AT_EMPTY_PATH, kStatMask, &stat) != 0) {
    return Failed(errno, "stat", "");
  }
  device_ = DeviceOf(stat);
  stat.stx_attributes = 0;  // the top may well be the root of a mount
  (void)Count(stat);        // it is on its own device
  UniqueFd top(OpenDirectoryQuietly(root, "."));
  if (!top.valid()) {
    return Failed(errno, "open directory", "");
  }
  if (const int error = walk_.Enter("", std::move(top)); error != 0) {
    return Failed(error, "stat", "");
  }
  return CountEntries();
}

Status UsageWalk::Enter(const std::string& name) {
  UniqueFd child(OpenDirectoryQuietly(walk_.fd(), name.c_str()));
  if (!child.valid()) {
    const bool replaced = errno == ENOTDIR || errno == ELOOP;
    return replaced || Vanished(errno) ? OkStatus() : Failed(errno, "open directory", name);
  }
  if (const int error = walk_.Enter(name, std::move(child)); error != 0) {
    return Failed(error, "stat", name);
  }
  return CountEntries();
}

StatusOr<Usage> UsageWalk::Run(int root) {
  STRATA_RETURN_IF_ERROR(call_.Check());
  STRATA_RETURN_IF_ERROR(EnterTop(root));
  while (walk_.depth() > 0) {
    if (const auto name = walk_.TakePostponed(); name.has_value()) {
      STRATA_RETURN_IF_ERROR(Enter(*name));
    } else {
      // When somebody has moved or removed the directory that was read, what is left of the levels
      // that are reached only through it counts as vanished.
      (void)walk_.Leave();
    }
  }
  return usage_;
}

}  // namespace

StatusOr<Usage> DiskUsage(const CallContext& call, int dirfd) {
  return UsageWalk(call).Run(dirfd);
}

}  // namespace strata
