// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/tree_copy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/attribute_copy.h"
#include "snapshotters/os/data_copy.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/directory_walk.h"

namespace strata {
namespace {

constexpr unsigned kStatMask = STATX_BASIC_STATS;

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

// O_NOATIME: being copied does not change a layer. Only the owner and CAP_FOWNER may. O_NONBLOCK:
// whatever the name is by now, opening it must not wait.
int OpenFileQuietly(int dirfd, const char* name) {
  constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  const int fd = ::openat(dirfd, name, kFlags | O_NOATIME);
  return fd < 0 && errno == EPERM ? ::openat(dirfd, name, kFlags) : fd;
}

class TreeCopy {
 public:
  TreeCopy(const CallContext& call, int from, int to)
      : call_(call), from_(from), to_(to), data_(call) {}

  Status Run();

 private:
  static constexpr size_t kNoDirectory = SIZE_MAX;

  // A directory that was entered; what names entries for linkat.
  struct Directory {
    size_t parent = kNoDirectory;
    std::string name;
  };

  // Of a level of the walks.
  struct Level {
    size_t directory = kNoDirectory;
    struct statx stat {};  // of the source
  };

  struct FirstLink {
    size_t directory = kNoDirectory;
    std::string name;
  };

  Status OpenTop();
  Status Enter(const std::string& name);
  // Both descriptors are of directory `name`.
  Status Push(const std::string& name, UniqueFd source, UniqueFd target);
  Status Leave();
  Status CopyEntries();
  Status CopyEntry(const std::string& name);

  Status CopyFile(const std::string& name, const struct statx& stat);
  Status CopySymlink(const std::string& name, const struct statx& stat);
  Status CopyNode(const std::string& name, const struct statx& stat);
  Status CopyAttributesAt(const std::string& name, const struct statx& stat);
  Status LinkToFirst(const std::string& name, const FirstLink& first);

  // Of an entry that was seen, from the top.
  [[nodiscard]] std::string LinkPath(const FirstLink& entry) const;
  [[nodiscard]] Status Failed(int error, std::string_view verb, const std::string& name) const {
    return ErrnoStatus(error, std::string(verb) + " " + ShowName(source_.PathOf(name)));
  }
  // `status` is about entry `name` of the deepest level.
  [[nodiscard]] Status About(const std::string& name, const Status& status) const {
    return status.ok() ? status : Annotate(status, "copy " + ShowName(source_.PathOf(name)));
  }

  const CallContext& call_;
  const int from_;
  const int to_;
  DataCopy data_;
  AttributeCopy attributes_;
  DirectoryWalk source_{OpenDirectoryQuietly};
  DirectoryWalk target_{OpenDirectoryQuietly};
  std::vector<Level> levels_;  // as deep as both walks
  std::vector<Directory> directories_;
  std::unordered_map<Inode, FirstLink, InodeHash> links_;
};

std::string TreeCopy::LinkPath(const FirstLink& entry) const {
  std::vector<const std::string*> parts{&entry.name};
  for (size_t at = entry.directory; directories_[at].parent != kNoDirectory;
       at = directories_[at].parent) {
    parts.push_back(&directories_[at].name);
  }
  std::string path;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    path += (path.empty() ? "" : "/") + **part;
  }
  return path;
}

Status TreeCopy::OpenTop() {
  // Opened anew, because reading moves the position of a descriptor.
  UniqueFd source(OpenDirectoryQuietly(from_, "."));
  if (!source.valid()) {
    return Failed(errno, "open directory", "");
  }
  UniqueFd target(OpenDirectoryQuietly(to_, "."));
  if (!target.valid()) {
    return Failed(errno, "open the target of directory", "");
  }
  // What is made in a directory with a default ACL gets an ACL that its source does not have.
  if (::fremovexattr(target.get(), "system.posix_acl_default") != 0 && errno != ENODATA &&
      errno != EOPNOTSUPP) {
    return Failed(errno, "remove the default ACL of the target of", "");
  }
  return Push("", std::move(source), std::move(target));
}

Status TreeCopy::Enter(const std::string& name) {
  UniqueFd source(OpenDirectoryQuietly(source_.fd(), name.c_str()));
  if (!source.valid()) {
    return Failed(errno, "open directory", name);
  }
  if (::mkdirat(target_.fd(), name.c_str(), S_IRWXU) != 0) {
    return Failed(errno, "make directory", name);
  }
  UniqueFd target(OpenDirectoryQuietly(target_.fd(), name.c_str()));
  if (!target.valid()) {
    return Failed(errno, "open the target of directory", name);
  }
  return Push(name, std::move(source), std::move(target));
}

Status TreeCopy::Push(const std::string& name, UniqueFd source, UniqueFd target) {
  Level level;
  if (::statx(source.get(), "", AT_EMPTY_PATH, kStatMask, &level.stat) != 0) {
    return Failed(errno, "stat", name);
  }
  const bool is_top = levels_.empty();
  // The attribute (Linux 5.8) tells binds of the same device too.
  const bool is_mount_point =
      !is_top && (InodeOf(level.stat).device != InodeOf(levels_.back().stat).device ||
                  (level.stat.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0);
  level.directory = directories_.size();
  directories_.push_back({is_top ? kNoDirectory : levels_.back().directory, name});
  int error = source_.Enter(name, std::move(source));
  if (error == 0) {
    error = target_.Enter("", std::move(target));
  }
  if (error != 0) {
    return Failed(error, "stat", name);
  }
  levels_.push_back(level);
  return is_mount_point ? OkStatus() : CopyEntries();
}

Status TreeCopy::Leave() {
  STRATA_RETURN_IF_ERROR(
      About("", attributes_.Copy(source_.fd(), target_.fd(), levels_.back().stat)));
  const size_t directory = levels_.back().directory;
  levels_.pop_back();
  const DirectoryWalk::Left source = source_.Leave();
  const DirectoryWalk::Left target = target_.Leave();
  const int error = source.error != 0 ? source.error : target.error;
  if (error == 0) {
    return OkStatus();
  }
  const std::string path =
      ShowName(LinkPath({directories_[directory].parent, directories_[directory].name}));
  return error == ESTALE ? MakeStatus(StatusCode::kFailedPrecondition,
                                      "copy " + path + ": somebody moved the directory meanwhile")
                         : ErrnoStatus(error, "open the parent of directory " + path);
}

Status TreeCopy::CopyEntries() {
  EntryReader entries(source_.fd());
  while (const dirent64* entry = entries.Next()) {
    STRATA_RETURN_IF_ERROR(call_.Check());
    if (entry->d_type == DT_DIR) {
      source_.Postpone(entry->d_name);
    } else {
      STRATA_RETURN_IF_ERROR(CopyEntry(entry->d_name));
    }
  }
  return entries.error() == 0 ? OkStatus() : Failed(entries.error(), "read directory", "");
}

Status TreeCopy::CopyEntry(const std::string& name) {
  struct statx stat {};
  if (::statx(source_.fd(), name.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, kStatMask,
              &stat) != 0) {
    return Failed(errno, "stat", name);
  }
  if (S_ISDIR(stat.stx_mode)) {
    source_.Postpone(name);
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

Status TreeCopy::LinkToFirst(const std::string& name, const FirstLink& first) {
  std::string path = LinkPath(first);
  UniqueFd step;
  int at = to_;
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
  if (::linkat(at, path.c_str(), target_.fd(), name.c_str(), 0) != 0) {
    return Failed(errno, "link", name);
  }
  return OkStatus();
}

Status TreeCopy::CopyFile(const std::string& name, const struct statx& stat) {
  const UniqueFd in(OpenFileQuietly(source_.fd(), name.c_str()));
  if (!in.valid()) {
    return Failed(errno, "open", name);
  }
  const UniqueFd out(::openat(target_.fd(), name.c_str(),
                              O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                              S_IRUSR | S_IWUSR));
  if (!out.valid()) {
    return Failed(errno, "create", name);
  }
  // A file that is a mount point stays empty, as a directory does.
  if (stat.stx_size > 0 && (stat.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0) {
    STRATA_RETURN_IF_ERROR(
        About(name, data_.Copy(in.get(), out.get(), static_cast<off_t>(stat.stx_size))));
  }
  return About(name, attributes_.Copy(in.get(), out.get(), stat));
}

Status TreeCopy::CopySymlink(const std::string& name, const struct statx& stat) {
  // The kernel makes none that is longer than PATH_MAX - 1.
  std::array<char, PATH_MAX + 1> text{};
  if (::readlinkat(source_.fd(), name.c_str(), text.data(), PATH_MAX) < 0) {
    return Failed(errno, "read symlink", name);
  }
  if (::symlinkat(text.data(), target_.fd(), name.c_str()) != 0) {
    return Failed(errno, "make symlink", name);
  }
  return CopyAttributesAt(name, stat);
}

Status TreeCopy::CopyNode(const std::string& name, const struct statx& stat) {
  const mode_t type = stat.stx_mode & S_IFMT;
  const dev_t device = makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
  if (::mknodat(target_.fd(), name.c_str(), type | S_IRUSR | S_IWUSR, device) != 0) {
    return Failed(errno, "make node", name);
  }
  return CopyAttributesAt(name, stat);
}

Status TreeCopy::CopyAttributesAt(const std::string& name, const struct statx& stat) {
  return About(name, attributes_.CopyAt(source_.fd(), target_.fd(), name, stat));
}

Status TreeCopy::Run() {
  STRATA_RETURN_IF_ERROR(call_.Check());
  STRATA_RETURN_IF_ERROR(OpenTop());
  while (source_.depth() > 0) {
    if (const auto name = source_.TakePostponed(); name.has_value()) {
      STRATA_RETURN_IF_ERROR(Enter(*name));
    } else {
      STRATA_RETURN_IF_ERROR(Leave());
    }
  }
  return OkStatus();
}

}  // namespace

Status CopyTree(const CallContext& call, int from, int to) {
  return TreeCopy(call, from, to).Run();
}

}  // namespace strata
