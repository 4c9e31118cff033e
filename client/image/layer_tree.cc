// SPDX-License-Identifier: Apache-2.0
#include "client/image/layer_tree.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/directory_entries.h"

namespace strata {
namespace {

constexpr int kMostLinks = 40;  // as many as the kernel follows (path_resolution(7))
constexpr size_t kMostOpenDirectories = 64;
constexpr mode_t kMissingMode = 0755;
constexpr int kOpenDirectory = O_RDONLY | O_DIRECTORY | O_NONBLOCK;

Status BadPath(std::string_view text, std::string_view why) {
  return MakeStatus(StatusCode::kInvalidArgument,
                    "path " + ShowName(text) + " " + std::string(why));
}

Status NotADirectory(const std::string& path) {
  return ErrnoStatus(ENOTDIR, "open " + ShowName(path));
}

std::string Below(const std::string& directory, const std::string& name) {
  return directory.empty() ? name : directory + "/" + name;
}

std::vector<std::string> Components(std::string_view path) {
  std::vector<std::string> components;
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    if (slash > 0 && path.substr(0, slash) != ".") {
      components.emplace_back(path.substr(0, slash));
    }
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return components;
}

// No file is there, or what would have to be a directory on the way is none.
bool IsAbsent(const Status& status) {
  const auto error = StatusErrno(status);
  return error == ENOENT || error == ENOTDIR || error == ELOOP;
}

}  // namespace

StatusOr<EntryPath> SplitEntryPath(std::string_view text) {
  if (text.size() >= PATH_MAX) {
    return BadPath(text.substr(0, 64), "is longer than 4095 bytes");
  }
  EntryPath path;
  for (const std::string& component : Components(text)) {
    if (component == "..") {
      return BadPath(text, "leads upward");
    }
    if (component.size() > NAME_MAX) {
      return BadPath(text, "has a name longer than 255 bytes");
    }
    path.parent = path.name.empty() ? path.parent : Below(path.parent, path.name);
    path.name = component;
  }
  return path;
}

// A place in the tree and what is still to be walked from there, the next component last.
struct LayerTree::Walk {
  UniqueFd fd;
  std::string path;
  bool shows_lower = false;
  std::vector<std::string> pending;
  int links = 0;

  void Push(const std::string& rest) {
    std::vector<std::string> components = Components(rest);
    pending.insert(pending.end(), components.rbegin(), components.rend());
  }
};

std::string LayerTree::Place::Path() const {
  return Below(directory->path, name);
}

StatusOr<LayerTree> LayerTree::Create(int top, Options options) {
  LayerTree tree(top, std::move(options));
  if (!tree.options_.overlay_upper) {
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> there, DirectoryEntries(top));
    tree.tracks_made_ = !there.empty();
  }
  return tree;
}

bool LayerTree::IsWhiteout(const struct stat& found) const {
  return options_.overlay_upper && S_ISCHR(found.st_mode) && found.st_rdev == makedev(0, 0);
}

StatusOr<int> LayerTree::Lower() {
  if (!lower_.has_value()) {
    lower_.emplace();
    if (options_.open_lower) {
      STRATA_ASSIGN_OR_RETURN(*lower_, options_.open_lower());
    }
  }
  return lower_->get();
}

StatusOr<std::optional<struct stat>> LayerTree::StatLower(const std::string& path) {
  STRATA_ASSIGN_OR_RETURN(const int lower, Lower());
  if (lower < 0) {
    return std::optional<struct stat>();
  }
  const StatusOr<UniqueFd> fd = OpenBeneath(lower, path, O_PATH | O_NOFOLLOW);
  if (!fd.ok()) {
    return IsAbsent(fd.status()) ? StatusOr<std::optional<struct stat>>(std::nullopt)
                                 : StatusOr<std::optional<struct stat>>(fd.status());
  }
  struct stat found {};
  if (::fstat(fd->get(), &found) != 0) {
    return ErrnoStatus(errno, "stat " + ShowName(path));
  }
  return std::optional<struct stat>(IsWhiteout(found) ? std::nullopt : std::optional(found));
}

// Walks begin at the directory nearest to the end that is open already.
StatusOr<LayerTree::Walk> LayerTree::BeginWalk(const std::string& path) {
  Walk walk;
  size_t end = path.size();
  while (end > 0) {
    const auto known = directories_.find(path.substr(0, end));
    if (known != directories_.end()) {
      STRATA_ASSIGN_OR_RETURN(walk.fd, OpenAt(known->second->fd.get(), ".", kOpenDirectory));
      walk.path = known->second->path;
      walk.shows_lower = known->second->shows_lower;
      walk.Push(path.substr(end));
      return walk;
    }
    const size_t slash = path.rfind('/', end - 1);
    end = slash == std::string::npos ? 0 : slash;
  }
  STRATA_RETURN_IF_ERROR(GoTo(walk, ""));
  walk.Push(path);
  return walk;
}

// From the top again: `path` is walked before what is pending.
Status LayerTree::GoTo(Walk& walk, const std::string& path) {
  STRATA_ASSIGN_OR_RETURN(walk.fd, OpenAt(top_, ".", kOpenDirectory));
  walk.path.clear();
  walk.shows_lower = false;
  if (options_.overlay_upper) {
    STRATA_ASSIGN_OR_RETURN(const bool opaque, IsOpaque(walk.fd.get()));
    walk.shows_lower = !opaque;
  }
  walk.Push(path);
  return OkStatus();
}

Status LayerTree::Enter(Walk& walk, const std::string& name, UniqueFd fd) {
  walk.fd = std::move(fd);
  walk.path = Below(walk.path, name);
  if (walk.shows_lower) {
    STRATA_ASSIGN_OR_RETURN(const bool opaque, IsOpaque(walk.fd.get()));
    walk.shows_lower = !opaque;
  }
  return OkStatus();
}

Status LayerTree::Follow(Walk& walk, const std::string& target) {
  if (++walk.links > kMostLinks) {
    return ErrnoStatus(ELOOP, "open " + ShowName(walk.path));
  }
  walk.Push(target);
  return target.starts_with('/') ? GoTo(walk, "") : OkStatus();
}

StatusOr<std::shared_ptr<const LayerTree::Directory>> LayerTree::FindDirectory(
    const std::string& path, Missing missing) {
  const auto known = directories_.find(path);
  if (known != directories_.end()) {
    return known->second;
  }
  STRATA_ASSIGN_OR_RETURN(Walk walk, BeginWalk(path));
  while (!walk.pending.empty()) {
    const std::string name = std::move(walk.pending.back());
    walk.pending.pop_back();
    STRATA_RETURN_IF_ERROR(Step(walk, name, missing));
  }
  auto directory = std::make_shared<Directory>();
  directory->fd = std::move(walk.fd);
  directory->path = std::move(walk.path);
  directory->shows_lower = walk.shows_lower;
  STRATA_RETURN_IF_ERROR(NoteTimes(*directory));
  if (directories_.size() >= kMostOpenDirectories) {
    directories_.clear();
  }
  directories_[path] = directory;
  return std::shared_ptr<const Directory>(directory);
}

Status LayerTree::Step(Walk& walk, const std::string& name, Missing missing) {
  if (name == "..") {
    const size_t slash = walk.path.rfind('/');
    return GoTo(walk, slash == std::string::npos ? "" : walk.path.substr(0, slash));
  }
  if (walk.path.size() + 1 + name.size() >= PATH_MAX) {
    return BadPath(walk.path.substr(0, 64), "is longer than 4095 bytes");
  }
  UniqueFd next(::openat(walk.fd.get(), name.c_str(), kOpenDirectory | O_NOFOLLOW | O_CLOEXEC));
  if (next.valid()) {
    return Enter(walk, name, std::move(next));
  }
  const int error = errno;
  struct stat found {};
  if (error == ENOENT) {
    return StepMissing(walk, name, missing, /*whited_out=*/false);
  }
  if ((error != ENOTDIR && error != ELOOP) ||
      ::fstatat(walk.fd.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(error, "open " + ShowName(Below(walk.path, name)));
  }
  if (IsWhiteout(found)) {
    return StepMissing(walk, name, missing, /*whited_out=*/true);
  }
  return StepOver(walk, name, found);
}

// What is there is no directory.
Status LayerTree::StepOver(Walk& walk, const std::string& name, const struct stat& found) {
  if (!S_ISLNK(found.st_mode)) {
    return NotADirectory(Below(walk.path, name));
  }
  char target[PATH_MAX];
  const ssize_t size = ::readlinkat(walk.fd.get(), name.c_str(), target, sizeof(target));
  if (size < 0) {
    return ErrnoStatus(errno, "read the link " + ShowName(Below(walk.path, name)));
  }
  return Follow(walk, std::string(target, static_cast<size_t>(size)));
}

// The name is not there, or only in a lower layer.
Status LayerTree::StepMissing(Walk& walk, const std::string& name, Missing missing,
                              bool whited_out) {
  const std::string path = Below(walk.path, name);
  if (walk.shows_lower && !whited_out) {
    STRATA_ASSIGN_OR_RETURN(const auto lower, StatLower(path));
    if (lower.has_value() && S_ISLNK(lower->st_mode)) {
      char target[PATH_MAX];
      STRATA_ASSIGN_OR_RETURN(const UniqueFd link,
                              OpenBeneath(lower_->get(), path, O_PATH | O_NOFOLLOW));
      const ssize_t size = ::readlinkat(link.get(), "", target, sizeof(target));
      if (size < 0) {
        return ErrnoStatus(errno, "read the link " + ShowName(path));
      }
      return Follow(walk, std::string(target, static_cast<size_t>(size)));
    }
    if (lower.has_value()) {
      if (!S_ISDIR(lower->st_mode)) {
        return NotADirectory(path);
      }
      STRATA_ASSIGN_OR_RETURN(UniqueFd fd, CopyUpDirectory(walk.fd.get(), path));
      return Enter(walk, name, std::move(fd));
    }
  }
  if (missing == Missing::kLeave) {
    return ErrnoStatus(ENOENT, "open " + ShowName(path));
  }
  if (whited_out && ::unlinkat(walk.fd.get(), name.c_str(), 0) != 0) {
    return ErrnoStatus(errno, "remove the whiteout of " + ShowName(path));
  }
  STRATA_RETURN_IF_ERROR(MakeDirAt(walk.fd.get(), name, kMissingMode));
  STRATA_ASSIGN_OR_RETURN(UniqueFd fd, OpenAt(walk.fd.get(), name, kOpenDirectory));
  if (whited_out) {
    STRATA_RETURN_IF_ERROR(SetOpaque(fd.get()));
  }
  return Enter(walk, name, std::move(fd));
}

StatusOr<LayerTree::Place> LayerTree::Find(const EntryPath& path, Missing missing) {
  STRATA_ASSIGN_OR_RETURN(std::shared_ptr<const Directory> directory,
                          FindDirectory(path.parent, missing));
  Place place{std::move(directory), path.name};
  if (place.Path().size() >= PATH_MAX) {
    return BadPath(place.Path().substr(0, 64), "is longer than 4095 bytes");
  }
  return place;
}

void LayerTree::Made(const Place& place) {
  if (!tracks_made_) {
    return;
  }
  std::string path = place.Path();
  while (made_.insert(path).second && !path.empty()) {
    const size_t slash = path.rfind('/');
    path.resize(slash == std::string::npos ? 0 : slash);
  }
}

Status LayerTree::NoteTimes(const Directory& directory) {
  if (times_.contains(directory.path)) {
    return OkStatus();
  }
  struct stat found {};
  if (::fstat(directory.fd.get(), &found) != 0) {
    return ErrnoStatus(errno, "stat " + ShowName(directory.path));
  }
  times_[directory.path] = {.device = found.st_dev,
                            .inode = found.st_ino,
                            .accessed = found.st_atim,
                            .modified = found.st_mtim};
  return OkStatus();
}

Status LayerTree::SetTimes(const Directory& directory, const timespec& modified) {
  struct stat found {};
  if (::fstat(directory.fd.get(), &found) != 0) {
    return ErrnoStatus(errno, "stat " + ShowName(directory.path));
  }
  times_[directory.path] = {
      .device = found.st_dev, .inode = found.st_ino, .accessed = modified, .modified = modified};
  return OkStatus();
}

Status LayerTree::Finish() {
  directories_.clear();
  for (const auto& [path, times] : times_) {
    const StatusOr<UniqueFd> fd = OpenBeneath(top_, path.empty() ? "." : path, kOpenDirectory);
    struct stat found {};
    if (!fd.ok()) {
      if (IsAbsent(fd.status())) {
        continue;  // replaced since
      }
      return fd.status();
    }
    if (::fstat(fd->get(), &found) != 0) {
      return ErrnoStatus(errno, "stat " + ShowName(path));
    }
    if (found.st_dev != times.device || found.st_ino != times.inode) {
      continue;
    }
    const timespec both[2] = {times.accessed, times.modified};
    if (::futimens(fd->get(), both) != 0) {
      return ErrnoStatus(errno, "set the times of " + ShowName(path));
    }
  }
  times_.clear();
  return OkStatus();
}

}  // namespace strata
