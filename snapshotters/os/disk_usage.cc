// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/disk_usage.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/directory_walk.h"
#include "snapshotters/os/tree_crew.h"

namespace strata {
namespace {

constexpr int64_t kBlockBytes = 512;  // the unit of st_blocks, whatever the file system's is
constexpr unsigned kStatMask = STATX_TYPE | STATX_NLINK | STATX_INO | STATX_BLOCKS;
// What a network file system knows without asking its server will do.
constexpr int kStatFlags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC;

// Entries that are worth the hand-over to another thread, some 0.05 ms.
constexpr size_t kEntriesToGive = 200;

bool Vanished(int error) {
  return error == ENOENT || error == ESTALE;
}

// What was a directory when it was seen is none any more.
bool Replaced(int error) {
  return error == ENOTDIR || error == ELOOP;
}

uint64_t DeviceOf(const struct statx& stat) {
  return uint64_t{stat.stx_dev_major} << 32 | stat.stx_dev_minor;
}

int64_t BytesOf(const struct statx& stat) {
  return static_cast<int64_t>(stat.stx_blocks) * kBlockBytes;
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

// What the threads of one walk share.
class SharedCount {
 public:
  // `call` must outlive this. The top, of which `top` tells, is counted, although it may well be
  // the root of a mount.
  SharedCount(const CallContext& call, const struct statx& top)
      : call_(call), device_(DeviceOf(top)), usage_{.size = BytesOf(top), .inodes = 1} {}

  // Cancelled once the caller has gone.
  [[nodiscard]] Status Check() const { return call_.Check(); }
  // Where all of the tree's directories are.
  [[nodiscard]] uint64_t device() const { return device_; }
  // Whether it is the first name of an inode that has several.
  bool IsFirst(const LinkedInode& inode) {
    const MutexLock lock(mutex_);
    return linked_.insert(inode).second;
  }
  void Add(const Usage& usage) {
    const MutexLock lock(mutex_);
    usage_.size += usage.size;
    usage_.inodes += usage.inodes;
  }
  Usage Total() {
    const MutexLock lock(mutex_);
    return usage_;
  }

 private:
  const CallContext& call_;
  const uint64_t device_;
  Mutex mutex_;
  Usage usage_ ABSL_GUARDED_BY(mutex_);
  std::unordered_set<LinkedInode, LinkedInodeHash> linked_ ABSL_GUARDED_BY(mutex_);
};

// One thread's walk of one part.
class PartWalk {
 public:
  // Both must outlive this.
  PartWalk(SharedCount& shared, TreeCrew& crew) : shared_(shared), crew_(crew) {}

  // What it counts is added to the rest.
  Status Run(TreeCrew::Part part);

 private:
  // False for what is on another mount.
  bool Count(const struct statx& stat);
  Status Walk();
  Status Enter(const std::string& name);
  Status CountDirectory();
  Status CountBatch();
  Status CountEntry(const char* name);
  // The batch in hand, to another thread; false when that cannot be.
  bool GiveBatch();
  Status GiveDirectory();
  [[nodiscard]] Status Failed(int error, std::string_view verb, std::string_view name) const {
    return ErrnoStatus(error, std::string(verb) + " " + ShowName(walk_.PathOf(name)));
  }

  SharedCount& shared_;
  TreeCrew& crew_;
  Usage usage_;
  EntryBatch batch_;
  DirectoryWalk walk_{OpenDirectoryQuietly};
};

bool PartWalk::Count(const struct statx& stat) {
  const bool is_directory = S_ISDIR(stat.stx_mode);
  const LinkedInode inode{DeviceOf(stat), stat.stx_ino};
  // The attribute (Linux 5.8) tells binds of the same device too. Only directories are held to the
  // device: in an overlay over several file systems other entries show devices of their own.
  if ((is_directory && inode.device != shared_.device()) ||
      (stat.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0) {
    return false;
  }
  if (!is_directory && stat.stx_nlink > 1 && !shared_.IsFirst(inode)) {
    return true;
  }
  usage_.size += BytesOf(stat);
  ++usage_.inodes;
  return true;
}

Status PartWalk::CountEntry(const char* name) {
  struct statx stat {};
  if (::statx(walk_.fd(), name, kStatFlags, kStatMask, &stat) != 0) {
    return Vanished(errno) ? OkStatus() : Failed(errno, "stat", name);
  }
  if (Count(stat) && S_ISDIR(stat.stx_mode)) {
    walk_.Postpone(name);
  }
  return OkStatus();
}

Status PartWalk::CountBatch() {
  for (const dirent64* entry : batch_.entries()) {
    STRATA_RETURN_IF_ERROR(shared_.Check());
    STRATA_RETURN_IF_ERROR(CountEntry(entry->d_name));
  }
  return OkStatus();
}

bool PartWalk::GiveBatch() {
  UniqueFd directory(::fcntl(walk_.fd(), F_DUPFD_CLOEXEC, 0));
  if (!directory.valid()) {
    return false;
  }
  crew_.Give({.directory = std::move(directory),
              .path = walk_.PathOf(""),
              .some = std::exchange(batch_, EntryBatch())});
  return true;
}

Status PartWalk::CountDirectory() {
  while (batch_.Read(walk_.fd())) {
    crew_.Looked(batch_.entries().size());
    const bool give = crew_.Hungry() && batch_.entries().size() >= kEntriesToGive;
    if (!give || !GiveBatch()) {
      STRATA_RETURN_IF_ERROR(CountBatch());
    }
  }
  const bool ended = batch_.error() == 0 || Vanished(batch_.error());
  return ended ? OkStatus() : Failed(batch_.error(), "read directory", "");
}

Status PartWalk::Enter(const std::string& name) {
  UniqueFd child(OpenDirectoryQuietly(walk_.fd(), name.c_str()));
  if (!child.valid()) {
    return Replaced(errno) || Vanished(errno) ? OkStatus() : Failed(errno, "open directory", name);
  }
  if (const int error = walk_.Enter(name, std::move(child)); error != 0) {
    return Failed(error, "stat", name);
  }
  return CountDirectory();
}

Status PartWalk::GiveDirectory() {
  std::optional<DirectoryWalk::Given> given = walk_.TakeNearTop();
  if (!given.has_value()) {
    return OkStatus();
  }
  UniqueFd directory(OpenDirectoryQuietly(given->at, given->name.c_str()));
  if (!directory.valid()) {
    return Replaced(errno) || Vanished(errno)
               ? OkStatus()
               : ErrnoStatus(errno, "open directory " + ShowName(given->path));
  }
  crew_.Give({.directory = std::move(directory), .path = std::move(given->path), .some = {}});
  return OkStatus();
}

Status PartWalk::Walk() {
  while (walk_.depth() > 0 && !crew_.failed()) {
    // Not the only one: two threads would hand a chain of directories to and fro.
    if (crew_.Hungry() && walk_.postponed() > 1) {
      STRATA_RETURN_IF_ERROR(GiveDirectory());
    }
    if (const auto name = walk_.TakePostponed(); name.has_value()) {
      STRATA_RETURN_IF_ERROR(Enter(*name));
    } else {
      // When somebody has moved or removed the directory that was read, what is left of the levels
      // that are reached only through it counts as vanished.
      (void)walk_.Leave();
    }
  }
  return OkStatus();
}

Status PartWalk::Run(TreeCrew::Part part) {
  STRATA_RETURN_IF_ERROR(shared_.Check());
  if (const int error = walk_.Enter(std::move(part.path), std::move(part.directory)); error != 0) {
    return Failed(error, "stat", "");
  }
  if (part.some.has_value()) {
    batch_ = *std::move(part.some);
    STRATA_RETURN_IF_ERROR(CountBatch());
  } else {
    STRATA_RETURN_IF_ERROR(CountDirectory());
  }
  STRATA_RETURN_IF_ERROR(Walk());
  shared_.Add(usage_);
  return OkStatus();
}

}  // namespace

StatusOr<Usage> DiskUsage(const CallContext& call, int dirfd) {
  struct statx stat {};
  if (::statx(dirfd, "", AT_EMPTY_PATH, kStatMask, &stat) != 0) {
    return ErrnoStatus(errno, "stat '.'");
  }
  UniqueFd top(OpenDirectoryQuietly(dirfd, "."));
  if (!top.valid()) {
    return ErrnoStatus(errno, "open directory '.'");
  }
  SharedCount shared(call, stat);
  TreeCrew crew([&shared](TreeCrew& all, TreeCrew::Part part) {
    return PartWalk(shared, all).Run(std::move(part));
  });
  STRATA_RETURN_IF_ERROR(crew.Run({.directory = std::move(top), .path = "", .some = {}}));
  return shared.Total();
}

}  // namespace strata
