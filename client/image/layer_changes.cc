// SPDX-License-Identifier: Apache-2.0
//
// What LayerTree changes in the directory: replacing, whiteouts, and what is brought up from below.
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "client/image/layer_tree.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/attribute_copy.h"
#include "snapshotters/os/data_copy.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/tree_remove.h"

namespace strata {
namespace {

constexpr int kOpenDirectory = O_RDONLY | O_DIRECTORY | O_NONBLOCK;

// overlayfs.rst, "whiteouts and opaque directories".
const char* OpaqueName(bool user_xattr) {
  return user_xattr ? "user.overlay.opaque" : "trusted.overlay.opaque";
}

StatusOr<std::optional<struct stat>> StatAt(int dirfd, const std::string& name) {
  struct stat found {};
  if (::fstatat(dirfd, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) {
      return std::optional<struct stat>();
    }
    return ErrnoStatus(errno, "stat " + ShowName(name));
  }
  return std::optional(found);
}

StatusOr<struct statx> StatxOf(int fd, const std::string& path) {
  struct statx found {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &found) != 0) {
    return ErrnoStatus(errno, "stat " + ShowName(path));
  }
  return found;
}

EntryPath SplitCanonical(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? EntryPath{"", path}
                                    : EntryPath{path.substr(0, slash), path.substr(slash + 1)};
}

}  // namespace

Status LayerTree::SetOpaque(int fd) {
  directories_.clear();
  const char* name = OpaqueName(options_.user_xattr);
  return ::fsetxattr(fd, name, "y", 1, 0) == 0
             ? OkStatus()
             : ErrnoStatus(errno, "set the xattr '" + std::string(name) + "'");
}

StatusOr<bool> LayerTree::IsOpaque(int fd) {
  char value = 0;
  const char* name = OpaqueName(options_.user_xattr);
  const ssize_t size = ::fgetxattr(fd, name, &value, 1);
  if (size < 0 && errno != ENODATA && errno != EOPNOTSUPP && errno != ERANGE) {
    return ErrnoStatus(errno, "read the xattr '" + std::string(name) + "'");
  }
  return size == 1 && value == 'y';
}

StatusOr<std::shared_ptr<const LayerTree::Directory>> LayerTree::MakeDirectory(const Place& place) {
  if (place.name.empty()) {
    return place.directory;
  }
  STRATA_ASSIGN_OR_RETURN(const auto there, StatAt(place.fd(), place.name));
  if (!there.has_value() || !S_ISDIR(there->st_mode)) {
    if (there.has_value()) {
      STRATA_RETURN_IF_ERROR(Clear(place));
    }
    STRATA_RETURN_IF_ERROR(MakeDirAt(place.fd(), place.name, 0700));
  }
  auto directory = std::make_shared<Directory>();
  STRATA_ASSIGN_OR_RETURN(directory->fd, OpenAt(place.fd(), place.name, kOpenDirectory));
  directory->path = place.Path();
  // In an upper folder it would show what is below, which what was here had replaced.
  if (options_.overlay_upper && there.has_value() && !S_ISDIR(there->st_mode)) {
    STRATA_RETURN_IF_ERROR(SetOpaque(directory->fd.get()));
  }
  Made(place);
  return std::shared_ptr<const Directory>(directory);
}

Status LayerTree::Clear(const Place& place) {
  STRATA_ASSIGN_OR_RETURN(const auto there, StatAt(place.fd(), place.name));
  if (!there.has_value()) {
    return OkStatus();
  }
  if (S_ISDIR(there->st_mode) || S_ISLNK(there->st_mode)) {
    directories_.clear();  // one of them may have been reached by it
  }
  if (S_ISDIR(there->st_mode)) {
    return RemoveTree(place.fd(), place.name);
  }
  return ::unlinkat(place.fd(), place.name.c_str(), 0) == 0
             ? OkStatus()
             : ErrnoStatus(errno, "remove " + ShowName(place.Path()));
}

StatusOr<UniqueFd> LayerTree::CopyUpDirectory(int parent, const std::string& path) {
  const std::string name = SplitCanonical(path).name;
  STRATA_ASSIGN_OR_RETURN(const int lower, Lower());
  STRATA_ASSIGN_OR_RETURN(const UniqueFd source, OpenBeneath(lower, path, kOpenDirectory));
  STRATA_RETURN_IF_ERROR(MakeDirAt(parent, name, 0700));
  STRATA_ASSIGN_OR_RETURN(UniqueFd target, OpenAt(parent, name, kOpenDirectory));
  STRATA_ASSIGN_OR_RETURN(const struct statx stat, StatxOf(source.get(), path));
  STRATA_RETURN_IF_ERROR(AttributeCopy().Copy(source.get(), target.get(), stat));
  // Of a lower layer's own opaqueness nothing is to be kept: here it would hide that layer.
  (void)::fremovexattr(target.get(), OpaqueName(options_.user_xattr));  // mostly not there
  STRATA_RETURN_IF_ERROR(
      NoteTimes({.fd = UniqueFd(::fcntl(target.get(), F_DUPFD_CLOEXEC, 0)), .path = path}));
  return target;
}

StatusOr<LayerTree::Place> LayerTree::FindLinkTarget(const EntryPath& path) {
  STRATA_ASSIGN_OR_RETURN(Place place, Find(path, Missing::kLeave));
  STRATA_ASSIGN_OR_RETURN(const auto there, StatAt(place.fd(), place.name));
  if (there.has_value() && !IsWhiteout(*there)) {
    return place;
  }
  if (!there.has_value() && place.directory->shows_lower) {
    STRATA_ASSIGN_OR_RETURN(const auto lower, StatLower(place.Path()));
    if (lower.has_value()) {
      STRATA_RETURN_IF_ERROR(CopyUp(place, *lower));
      return place;
    }
  }
  return ErrnoStatus(ENOENT, "open " + ShowName(place.Path()));
}

// A file of a lower layer, of any kind but a directory, into the upper folder.
Status LayerTree::CopyUp(const Place& place, const struct stat& found) {
  const std::string path = place.Path();
  if (S_ISDIR(found.st_mode)) {
    return ErrnoStatus(EISDIR, "link " + ShowName(path));
  }
  const EntryPath split = SplitCanonical(path);
  STRATA_ASSIGN_OR_RETURN(const int lower, Lower());
  STRATA_ASSIGN_OR_RETURN(
      const UniqueFd parent,
      OpenBeneath(lower, split.parent.empty() ? "." : split.parent, kOpenDirectory));
  if (S_ISREG(found.st_mode)) {
    STRATA_ASSIGN_OR_RETURN(const UniqueFd source,
                            OpenAt(parent.get(), place.name, O_RDONLY | O_NONBLOCK));
    STRATA_ASSIGN_OR_RETURN(
        const UniqueFd target,
        OpenAt(place.fd(), place.name, O_WRONLY | O_CREAT | O_EXCL, S_IRUSR | S_IWUSR));
    const CallContext call;
    STRATA_RETURN_IF_ERROR(DataCopy(call).Copy(source.get(), target.get(), found.st_size));
    STRATA_ASSIGN_OR_RETURN(const struct statx stat, StatxOf(source.get(), path));
    return AttributeCopy().Copy(source.get(), target.get(), stat);
  }
  if (S_ISLNK(found.st_mode)) {
    char text[PATH_MAX];
    const ssize_t size = ::readlinkat(parent.get(), place.name.c_str(), text, sizeof(text));
    if (size < 0 || static_cast<size_t>(size) == sizeof(text)) {
      return ErrnoStatus(size < 0 ? errno : ENAMETOOLONG, "read the link " + ShowName(path));
    }
    text[size] = '\0';
    if (::symlinkat(text, place.fd(), place.name.c_str()) != 0) {
      return ErrnoStatus(errno, "make the link " + ShowName(path));
    }
  } else if (::mknodat(place.fd(), place.name.c_str(), found.st_mode & (S_IFMT | 07777),
                       found.st_rdev) != 0) {
    return ErrnoStatus(errno, "make the node " + ShowName(path));
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd source,
                          OpenAt(parent.get(), place.name, O_PATH | O_NOFOLLOW));
  STRATA_ASSIGN_OR_RETURN(const struct statx stat, StatxOf(source.get(), path));
  return AttributeCopy().CopyAt(parent.get(), place.fd(), place.name, stat);
}

Status LayerTree::WhiteOut(const Place& place) {
  if (!options_.overlay_upper) {
    // Into an empty directory nothing came from below.
    return tracks_made_ ? RemoveForeign(place.Path()) : OkStatus();
  }
  STRATA_ASSIGN_OR_RETURN(const auto there, StatAt(place.fd(), place.name));
  if (there.has_value()) {
    if (!S_ISDIR(there->st_mode)) {
      return OkStatus();  // of this layer, and hides what is below
    }
    STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenAt(place.fd(), place.name, kOpenDirectory));
    return SetOpaque(fd.get());
  }
  if (!place.directory->shows_lower) {
    return OkStatus();
  }
  // Linux 5.8 lets user namespaces do so, too.
  if (::mknodat(place.fd(), place.name.c_str(), S_IFCHR, makedev(0, 0)) != 0) {
    return ErrnoStatus(errno, "make the whiteout of " + ShowName(place.Path()));
  }
  return OkStatus();
}

Status LayerTree::MakeOpaque(const std::string& path) {
  STRATA_ASSIGN_OR_RETURN(const std::shared_ptr<const Directory> found,
                          FindDirectory(path, Missing::kLeave));
  if (options_.overlay_upper) {
    return SetOpaque(found->fd.get());
  }
  return tracks_made_ ? RemoveForeignIn(found->path) : OkStatus();
}

Status LayerTree::RemoveForeignIn(const std::string& path) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd,
                          OpenBeneath(top_, path.empty() ? "." : path, kOpenDirectory));
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(fd.get()));
  const std::string prefix = path.empty() ? "" : path + "/";
  std::string entry;
  for (const std::string& name : names) {
    entry.assign(prefix).append(name);
    STRATA_RETURN_IF_ERROR(RemoveForeign(entry));
  }
  return OkStatus();
}

// All at and below `path` that did not come with this layer. As deep as paths of this layer are,
// which are at most PATH_MAX long.
// NOLINTNEXTLINE(misc-no-recursion)
Status LayerTree::RemoveForeign(const std::string& path) {
  const EntryPath split = SplitCanonical(path);
  STRATA_ASSIGN_OR_RETURN(
      const UniqueFd parent,
      OpenBeneath(top_, split.parent.empty() ? "." : split.parent, kOpenDirectory));
  STRATA_ASSIGN_OR_RETURN(const auto there, StatAt(parent.get(), split.name));
  if (!there.has_value()) {
    return OkStatus();
  }
  if (!made_.contains(path)) {
    directories_.clear();
    return RemoveTree(parent.get(), split.name);
  }
  return S_ISDIR(there->st_mode) ? RemoveForeignIn(path) : OkStatus();
}

}  // namespace strata
