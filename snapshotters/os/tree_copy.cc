// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/tree_copy.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

constexpr size_t kReadBytes = size_t{32} * 1024;
constexpr size_t kBufferBytes = size_t{256} * 1024;
constexpr off_t kCopyRangeBytes = off_t{16} * 1024 * 1024;  // between two looks at the caller
// The kernel's own limits (linux/limits.h: XATTR_LIST_MAX, XATTR_SIZE_MAX).
constexpr size_t kXattrBytes = size_t{64} * 1024;
// Levels whose descriptors stay open while deeper ones are copied. Below them only the deepest is
// open, and the way up is "..", checked against the inodes that we came from.
constexpr size_t kHeldLevels = 32;
constexpr unsigned kStatMask = STATX_BASIC_STATS;
constexpr mode_t kModeBits = 07777;

struct Inode {
  uint64_t device = 0;
  uint64_t number = 0;

  bool operator==(const Inode&) const = default;
};

struct InodeHash {
  size_t operator()(const Inode& inode) const {
    return std::hash<uint64_t>{}(inode.number ^ inode.device << 48);
  }
};

Inode InodeOf(const struct statx& stat) {
  return {uint64_t{stat.stx_dev_major} << 32 | stat.stx_dev_minor, stat.stx_ino};
}

bool StatFd(int fd, struct statx& stat) {
  return ::statx(fd, "", AT_EMPTY_PATH, kStatMask, &stat) == 0;
}

// O_NOATIME: being copied does not change a layer. Only the owner and CAP_FOWNER may. O_NONBLOCK:
// whatever the name is by now, opening it must not wait.
int OpenSource(int dirfd, const char* name, int flags) {
  flags |= O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  const int fd = ::openat(dirfd, name, flags | O_NOATIME);
  return fd < 0 && errno == EPERM ? ::openat(dirfd, name, flags) : fd;
}

int OpenDirectory(int dirfd, const char* name) {
  return OpenSource(dirfd, name, O_DIRECTORY);
}

std::array<timespec, 2> TimesOf(const struct statx& stat) {
  const auto convert = [](const struct statx_timestamp& time) {
    return timespec{static_cast<time_t>(time.tv_sec), static_cast<long>(time.tv_nsec)};
  };
  return {convert(stat.stx_atime), convert(stat.stx_mtime)};
}

// Names an entry for the calls that exist for paths only.
std::string ProcPath(int dirfd, const std::string& name) {
  return "/proc/self/fd/" + std::to_string(dirfd) + "/" + name;
}

class TreeCopy {
 public:
  TreeCopy(const CallContext& call, int from, int to)
      : call_(call),
        from_(from),
        to_(to),
        buffer_(std::make_unique_for_overwrite<char[]>(kBufferBytes)),
        xattr_names_(std::make_unique_for_overwrite<char[]>(kXattrBytes)) {}

  Status Run();

 private:
  static constexpr size_t kNoDirectory = SIZE_MAX;

  // A directory that was entered; what names entries for linkat and for messages.
  struct Directory {
    size_t parent = kNoDirectory;
    std::string name;
  };

  struct Level {
    size_t directory = kNoDirectory;
    UniqueFd source;
    UniqueFd target;
    struct statx stat {};              // of the source
    Inode target_inode;                // known from kHeldLevels on
    std::vector<std::string> pending;  // directories to enter yet
  };

  struct FirstLink {
    size_t directory = kNoDirectory;
    std::string name;
  };

  Status OpenTop();
  Status CopyEntries();
  Status CopyEntry(const std::string& name);
  Status Enter(const std::string& name);
  Status Leave();
  Status Reopen(Level& above, const Level& left) const;

  Status CopyFile(const std::string& name, const struct statx& stat);
  Status CopySymlink(const std::string& name, const struct statx& stat);
  Status CopyNode(const std::string& name, const struct statx& stat);
  Status LinkToFirst(const std::string& name, const FirstLink& first);

  Status CopyData(int source, int target, off_t size, const std::string& name);
  bool Clone(int source, int target);
  Status CopySegment(int source, int target, off_t offset, off_t end, const std::string& name);
  StatusOr<off_t> CopyRange(int source, int target, off_t offset, off_t end,
                            const std::string& name);
  StatusOr<off_t> CopyBytes(int source, int target, off_t offset, off_t end,
                            const std::string& name);

  // Owner, xattrs, mode, times, in this order: a change of owner takes the setuid bits and the
  // capabilities away, a mode may forbid to set xattrs, and each of them may touch a time.
  Status CopyAttributes(int source, int target, const struct statx& stat, const std::string& name);
  Status CopyAttributesAt(const std::string& name, const struct statx& stat);
  // `list`, `get` and `set` are flistxattr and so on, or the l forms on a path.
  template <typename List, typename Get, typename Set>
  Status CopyXattrs(List list, Get get, Set set, const std::string& name);

  [[nodiscard]] std::string PathOf(size_t directory, const std::string& name) const;
  [[nodiscard]] Status Failed(int error, std::string_view verb, const std::string& name) const;
  [[nodiscard]] int source() const { return levels_.back().source.get(); }
  [[nodiscard]] int target() const { return levels_.back().target.get(); }

  const CallContext& call_;
  const int from_;
  const int to_;
  const std::unique_ptr<char[]> buffer_;
  const std::unique_ptr<char[]> xattr_names_;
  std::vector<Level> levels_;
  std::vector<Directory> directories_;
  std::unordered_map<Inode, FirstLink, InodeHash> links_;
  bool has_cloned_ = false;
  bool try_clone_ = true;
  bool try_copy_range_ = true;
};

std::string TreeCopy::PathOf(size_t directory, const std::string& name) const {
  std::vector<const std::string*> parts{&name};
  for (; directory != kNoDirectory; directory = directories_[directory].parent) {
    parts.push_back(&directories_[directory].name);
  }
  std::string path;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (!(*part)->empty()) {
      path += (path.empty() ? "" : "/") + **part;
    }
  }
  return path.empty() ? "." : path;
}

Status TreeCopy::Failed(int error, std::string_view verb, const std::string& name) const {
  const size_t directory = levels_.empty() ? kNoDirectory : levels_.back().directory;
  return ErrnoStatus(error, std::string(verb) + " " + ShowName(PathOf(directory, name)));
}

Status TreeCopy::OpenTop() {
  Level top;
  top.directory = 0;
  directories_.emplace_back();
  // Opened anew, because reading moves the position of a descriptor.
  top.source = UniqueFd(OpenDirectory(from_, "."));
  if (!top.source.valid() || !StatFd(top.source.get(), top.stat)) {
    return Failed(errno, "open directory", ".");
  }
  top.target = UniqueFd(OpenDirectory(to_, "."));
  if (!top.target.valid()) {
    return Failed(errno, "open the target of directory", ".");
  }
  // What is made in a directory with a default ACL gets an ACL that its source does not have.
  if (::fremovexattr(top.target.get(), "system.posix_acl_default") != 0 && errno != ENODATA &&
      errno != EOPNOTSUPP) {
    return Failed(errno, "remove the default ACL of the target of", ".");
  }
  levels_.push_back(std::move(top));
  return CopyEntries();
}

Status TreeCopy::CopyEntries() {
  alignas(dirent64) char buffer[kReadBytes];
  while (true) {
    const ssize_t count = ::getdents64(source(), buffer, sizeof(buffer));
    if (count < 0) {
      return Failed(errno, "read directory", "");
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
      if (entry->d_type == DT_DIR) {
        levels_.back().pending.emplace_back(name);
      } else {
        STRATA_RETURN_IF_ERROR(CopyEntry(std::string(name)));
      }
    }
  }
}

Status TreeCopy::CopyEntry(const std::string& name) {
  struct statx stat {};
  if (::statx(source(), name.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, kStatMask, &stat) !=
      0) {
    return Failed(errno, "stat", name);
  }
  if (S_ISDIR(stat.stx_mode)) {
    levels_.back().pending.push_back(name);
    return OkStatus();
  }
  if (stat.stx_nlink > 1) {
    const auto [first, is_new] =
        links_.try_emplace(InodeOf(stat), FirstLink{levels_.back().directory, name});
    if (!is_new) {
      return LinkToFirst(name, first->second);
    }
  }
  if (S_ISREG(stat.stx_mode)) {
    return CopyFile(name, stat);
  }
  return S_ISLNK(stat.stx_mode) ? CopySymlink(name, stat) : CopyNode(name, stat);
}

Status TreeCopy::Enter(const std::string& name) {
  Level& above = levels_.back();
  Level child;
  child.source = UniqueFd(OpenDirectory(source(), name.c_str()));
  if (!child.source.valid()) {
    return Failed(errno, "open directory", name);
  }
  if (!StatFd(child.source.get(), child.stat)) {
    return Failed(errno, "stat", name);
  }
  if (::mkdirat(target(), name.c_str(), S_IRWXU) != 0) {
    return Failed(errno, "make directory", name);
  }
  child.target = UniqueFd(OpenDirectory(target(), name.c_str()));
  if (!child.target.valid()) {
    return Failed(errno, "open the target of directory", name);
  }
  if (levels_.size() >= kHeldLevels) {
    struct statx stat {};
    if (!StatFd(child.target.get(), stat)) {
      return Failed(errno, "stat the target of", name);
    }
    child.target_inode = InodeOf(stat);
  }
  child.directory = directories_.size();
  directories_.push_back({above.directory, name});
  // The attribute (Linux 5.8) tells binds of the same device too.
  const bool is_mount_point = InodeOf(child.stat).device != InodeOf(above.stat).device ||
                              (child.stat.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
  if (levels_.size() > kHeldLevels) {
    above.source.Reset();
    above.target.Reset();
  }
  levels_.push_back(std::move(child));
  return is_mount_point ? OkStatus() : CopyEntries();
}

Status TreeCopy::Reopen(Level& above, const Level& left) const {
  above.source = UniqueFd(OpenDirectory(left.source.get(), ".."));
  above.target = UniqueFd(OpenDirectory(left.target.get(), ".."));
  struct statx source {};
  struct statx target {};
  if (!above.source.valid() || !above.target.valid() || !StatFd(above.source.get(), source) ||
      !StatFd(above.target.get(), target)) {
    return Failed(errno, "open directory", "");
  }
  if (InodeOf(source) != InodeOf(above.stat) || InodeOf(target) != above.target_inode) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "copy " + ShowName(PathOf(left.directory, "")) +
                          ": somebody moved the directory meanwhile");
  }
  return OkStatus();
}

Status TreeCopy::Leave() {
  const Level& done = levels_.back();
  STRATA_RETURN_IF_ERROR(CopyAttributes(done.source.get(), done.target.get(), done.stat, ""));
  const Level left = std::move(levels_.back());
  levels_.pop_back();
  return levels_.size() > kHeldLevels ? Reopen(levels_.back(), left) : OkStatus();
}

Status TreeCopy::LinkToFirst(const std::string& name, const FirstLink& first) {
  std::string path = PathOf(first.directory, first.name);
  UniqueFd step;
  int at = levels_.front().target.get();
  // A path that is too long for one call is walked in pieces that are not.
  while (path.size() >= PATH_MAX) {
    const size_t slash = path.rfind('/', PATH_MAX - 1);
    UniqueFd next(::openat(at, path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!next.valid()) {
      return Failed(errno, "find the other link of", name);
    }
    step = std::move(next);
    at = step.get();
    path.erase(0, slash + 1);
  }
  if (::linkat(at, path.c_str(), target(), name.c_str(), 0) != 0) {
    return Failed(errno, "link", name);
  }
  return OkStatus();
}

Status TreeCopy::CopyFile(const std::string& name, const struct statx& stat) {
  const UniqueFd in(OpenSource(source(), name.c_str(), 0));
  if (!in.valid()) {
    return Failed(errno, "open", name);
  }
  const UniqueFd out(::openat(target(), name.c_str(),
                              O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                              S_IRUSR | S_IWUSR));
  if (!out.valid()) {
    return Failed(errno, "create", name);
  }
  // A file that is a mount point stays empty, as a directory does.
  if (stat.stx_size > 0 && (stat.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0) {
    STRATA_RETURN_IF_ERROR(CopyData(in.get(), out.get(), static_cast<off_t>(stat.stx_size), name));
  }
  return CopyAttributes(in.get(), out.get(), stat, name);
}

bool TreeCopy::Clone(int source, int target) {
  if (!try_clone_) {
    return false;
  }
  if (::ioctl(target, FICLONE, source) == 0) {
    has_cloned_ = true;
    return true;
  }
  // What says that these two file systems never will. EINVAL may be about one file (btrfs: with and
  // without checksums), so it counts only before the first success. After any other error the copy
  // goes on by bytes and meets the error itself, if it is one.
  if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EXDEV || errno == ENOSYS ||
      (errno == EINVAL && !has_cloned_)) {
    try_clone_ = false;
  }
  return false;
}

Status TreeCopy::CopyData(int source, int target, off_t size, const std::string& name) {
  if (Clone(source, target)) {
    return OkStatus();
  }
  off_t offset = 0;
  while (offset < size) {
    const off_t data = ::lseek(source, offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
      break;  // a hole up to the end
    }
    const off_t hole = data < 0 ? -1 : ::lseek(source, data, SEEK_HOLE);
    if (hole < 0 && errno != EINVAL) {
      return Failed(errno, "seek in", name);
    }
    // EINVAL: a file system without holes.
    const off_t end = hole < 0 ? size : std::min(hole, size);
    STRATA_RETURN_IF_ERROR(
        CopySegment(source, target, hole < 0 ? offset : std::min(data, size), end, name));
    offset = end;
    if (hole >= size) {
      return OkStatus();  // ends with data, so its size is right
    }
  }
  if (::ftruncate(target, size) != 0) {
    return Failed(errno, "set the size of", name);
  }
  return OkStatus();
}

Status TreeCopy::CopySegment(int source, int target, off_t offset, off_t end,
                             const std::string& name) {
  while (offset < end) {
    STRATA_RETURN_IF_ERROR(call_.Check());
    off_t copied = 0;
    if (try_copy_range_) {
      STRATA_ASSIGN_OR_RETURN(copied, CopyRange(source, target, offset, end, name));
    }
    if (copied == 0) {
      STRATA_ASSIGN_OR_RETURN(copied, CopyBytes(source, target, offset, end, name));
    }
    if (copied == 0) {
      return MakeStatus(StatusCode::kFailedPrecondition,
                        "copy " + ShowName(PathOf(levels_.back().directory, name)) +
                            ": the file became shorter meanwhile");
    }
    offset += copied;
  }
  return OkStatus();
}

// 0 where the call cannot copy these files.
StatusOr<off_t> TreeCopy::CopyRange(int source, int target, off_t offset, off_t end,
                                    const std::string& name) {
  off_t in = offset;
  off_t out = offset;
  const ssize_t count = ::copy_file_range(
      source, &in, target, &out, static_cast<size_t>(std::min(end - offset, kCopyRangeBytes)), 0);
  if (count >= 0) {
    return count;
  }
  switch (errno) {
    case ENOSYS:
    case EXDEV:
    case EINVAL:
    case EOPNOTSUPP:
    case EPERM:  // seccomp profiles older than the call; a file that forbids it says so to write
      try_copy_range_ = false;
      return 0;
    case EINTR:
      return 0;
    default:
      return Failed(errno, "copy", name);
  }
}

StatusOr<off_t> TreeCopy::CopyBytes(int source, int target, off_t offset, off_t end,
                                    const std::string& name) {
  const auto wanted = std::min(static_cast<size_t>(end - offset), kBufferBytes);
  ssize_t count = 0;
  do {
    count = ::pread(source, buffer_.get(), wanted, offset);
  } while (count < 0 && errno == EINTR);
  if (count < 0) {
    return Failed(errno, "read", name);
  }
  for (ssize_t done = 0; done < count;) {
    const ssize_t written =
        ::pwrite(target, buffer_.get() + done, static_cast<size_t>(count - done), offset + done);
    if (written < 0 && errno != EINTR) {
      return Failed(errno, "write", name);
    }
    done += std::max<ssize_t>(written, 0);
  }
  return count;
}

Status TreeCopy::CopySymlink(const std::string& name, const struct statx& stat) {
  const ssize_t length = ::readlinkat(source(), name.c_str(), buffer_.get(), kBufferBytes - 1);
  if (length < 0) {
    return Failed(errno, "read symlink", name);
  }
  buffer_[static_cast<size_t>(length)] = '\0';
  if (::symlinkat(buffer_.get(), target(), name.c_str()) != 0) {
    return Failed(errno, "make symlink", name);
  }
  return CopyAttributesAt(name, stat);
}

Status TreeCopy::CopyNode(const std::string& name, const struct statx& stat) {
  const mode_t type = stat.stx_mode & S_IFMT;
  const dev_t device = makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
  if (::mknodat(target(), name.c_str(), type | S_IRUSR | S_IWUSR, device) != 0) {
    return Failed(errno, "make node", name);
  }
  return CopyAttributesAt(name, stat);
}

Status TreeCopy::CopyAttributes(int source, int target, const struct statx& stat,
                                const std::string& name) {
  if (::fchown(target, stat.stx_uid, stat.stx_gid) != 0) {
    return Failed(errno, "chown", name);
  }
  STRATA_RETURN_IF_ERROR(
      CopyXattrs([&](char* list, size_t size) { return ::flistxattr(source, list, size); },
                 [&](const char* key, void* value, size_t size) {
                   return ::fgetxattr(source, key, value, size);
                 },
                 [&](const char* key, const void* value, size_t size) {
                   return ::fsetxattr(target, key, value, size, 0);
                 },
                 name));
  if (::fchmod(target, stat.stx_mode & kModeBits) != 0) {
    return Failed(errno, "chmod", name);
  }
  if (::futimens(target, TimesOf(stat).data()) != 0) {
    return Failed(errno, "set the times of", name);
  }
  return OkStatus();
}

Status TreeCopy::CopyAttributesAt(const std::string& name, const struct statx& stat) {
  if (::fchownat(target(), name.c_str(), stat.stx_uid, stat.stx_gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return Failed(errno, "chown", name);
  }
  const std::string from = ProcPath(source(), name);
  const std::string to = ProcPath(target(), name);
  STRATA_RETURN_IF_ERROR(
      CopyXattrs([&](char* list, size_t size) { return ::llistxattr(from.c_str(), list, size); },
                 [&](const char* key, void* value, size_t size) {
                   return ::lgetxattr(from.c_str(), key, value, size);
                 },
                 [&](const char* key, const void* value, size_t size) {
                   return ::lsetxattr(to.c_str(), key, value, size, 0);
                 },
                 name));
  // The mode of a symlink means nothing and cannot be set.
  if (!S_ISLNK(stat.stx_mode) &&
      ::fchmodat(target(), name.c_str(), stat.stx_mode & kModeBits, 0) != 0) {
    return Failed(errno, "chmod", name);
  }
  if (::utimensat(target(), name.c_str(), TimesOf(stat).data(), AT_SYMLINK_NOFOLLOW) != 0) {
    return Failed(errno, "set the times of", name);
  }
  return OkStatus();
}

template <typename List, typename Get, typename Set>
Status TreeCopy::CopyXattrs(List list, Get get, Set set, const std::string& name) {
  const ssize_t listed = list(xattr_names_.get(), kXattrBytes);
  if (listed < 0) {
    return errno == EOPNOTSUPP ? OkStatus() : Failed(errno, "list the xattrs of", name);
  }
  for (ssize_t offset = 0; offset < listed;) {
    const char* key = xattr_names_.get() + offset;
    offset += static_cast<ssize_t>(std::string_view(key).size()) + 1;
    const ssize_t size = get(key, buffer_.get(), kXattrBytes);
    if (size < 0) {
      if (errno == ENODATA || errno == EOPNOTSUPP) {
        continue;
      }
      return Failed(errno, "get xattr '" + std::string(key) + "' of", name);
    }
    if (set(key, buffer_.get(), static_cast<size_t>(size)) != 0 && errno != EOPNOTSUPP) {
      return Failed(errno, "set xattr '" + std::string(key) + "' of", name);
    }
  }
  return OkStatus();
}

Status TreeCopy::Run() {
  STRATA_RETURN_IF_ERROR(call_.Check());
  STRATA_RETURN_IF_ERROR(OpenTop());
  while (!levels_.empty()) {
    std::vector<std::string>& pending = levels_.back().pending;
    if (pending.empty()) {
      STRATA_RETURN_IF_ERROR(Leave());
      continue;
    }
    const std::string name = std::move(pending.back());
    pending.pop_back();
    STRATA_RETURN_IF_ERROR(Enter(name));
  }
  return OkStatus();
}

}  // namespace

Status CopyTree(const CallContext& call, int from, int to) {
  return TreeCopy(call, from, to).Run();
}

}  // namespace strata
