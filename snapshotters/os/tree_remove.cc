// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/tree_remove.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

constexpr size_t kReadBytes = size_t{32} * 1024;
// Levels whose descriptors stay open while deeper ones are emptied. Below them only the deepest is
// open, and the way up is "..", checked against the inode that we came from.
constexpr size_t kHeldLevels = 32;
// How often a directory is read again because something was in it after all: others may add
// entries, and a file system may skip some while its directory shrinks. Somebody who keeps adding
// must not keep us for ever.
constexpr int kMaxRescans = 16;

bool Gone(int error) {
  return error == ENOENT || error == ESTALE;
}

// Gives the directory's owner every right to it; for owners that are not root.
bool Unlock(int path_fd) {
  // fchmod refuses O_PATH descriptors and fchmodat follows symlinks; this does neither.
  const std::string link = "/proc/self/fd/" + std::to_string(path_fd);
  return ::chmod(link.c_str(), S_IRWXU) == 0;
}

// -1 with errno.
int OpenDirectory(int dirfd, const char* name) {
  constexpr int kFlags = O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  const int fd = ::openat(dirfd, name, O_RDONLY | kFlags);
  if (fd >= 0 || errno != EACCES) {
    return fd;
  }
  const UniqueFd locked(::openat(dirfd, name, O_PATH | kFlags));
  if (!locked.valid() || !Unlock(locked.get())) {
    errno = EACCES;
    return -1;
  }
  return ::openat(locked.get(), ".", O_RDONLY | kFlags);
}

class Removal {
 public:
  Removal(int parent, std::string name) : parent_(parent), name_(std::move(name)) {}

  Status Run();

 private:
  struct Inode {
    dev_t device = 0;
    ino_t number = 0;
  };

  struct Level {
    std::string name;
    UniqueFd fd;
    Inode inode;                       // known from kHeldLevels on
    std::vector<std::string> pending;  // directories to empty yet
    int rescans = 0;
    bool unlocked = false;
    bool failed = false;  // something in it stays, and the reason is recorded
  };

  // These return 0 or an errno; what is gone already is 0.
  int RemoveEntry(const char* name, unsigned char type);
  int Unlink(const char* name, int flags);

  // Removes what is in the deepest level, except for the directories that are not empty.
  void Scan();
  void Enter(std::string name);
  void Leave();
  // Opens the level above the deepest again; false when it is not there any more.
  bool Reopen(Level& above, int below);
  void Fail(int error, std::string_view verb, std::string_view name);

  const int parent_;
  const std::string name_;
  std::vector<Level> levels_;
  Status first_error_;
};

void Removal::Fail(int error, std::string_view verb, std::string_view name) {
  std::string path;
  for (Level& level : levels_) {
    path += level.name + "/";
  }
  path += name;
  if (!levels_.empty()) {
    levels_.back().failed = true;
  }
  if (first_error_.ok()) {
    first_error_ = ErrnoStatus(error, std::string(verb) + " " + ShowName(path));
  }
}

int Removal::Unlink(const char* name, int flags) {
  const int at = levels_.empty() ? parent_ : levels_.back().fd.get();
  if (::unlinkat(at, name, flags) == 0 || Gone(errno)) {
    return 0;
  }
  // The directory that holds the name may forbid it; one inside the tree is ours to change.
  if (errno != EACCES || levels_.empty() || std::exchange(levels_.back().unlocked, true) ||
      !Unlock(at)) {
    return errno;
  }
  return ::unlinkat(at, name, flags) == 0 || Gone(errno) ? 0 : errno;
}

// rmdir(2) before a look inside: an empty directory is gone with one call, and a mount point
// answers EBUSY whatever is in it, on every kernel and for binds of the same device too.
int Removal::RemoveEntry(const char* name, unsigned char type) {
  int error = 0;
  if (type != DT_DIR) {
    error = Unlink(name, 0);
    if (error != EISDIR) {
      return error;
    }
  }
  error = Unlink(name, AT_REMOVEDIR);
  return error == ENOTDIR ? Unlink(name, 0) : error;
}

void Removal::Scan() {
  const int fd = levels_.back().fd.get();
  alignas(dirent64) char buffer[kReadBytes];
  while (true) {
    const ssize_t count = ::getdents64(fd, buffer, sizeof(buffer));
    if (count <= 0) {
      if (count < 0 && !Gone(errno)) {
        Fail(errno, "read directory", ".");
      }
      return;
    }
    for (ssize_t offset = 0; offset < count;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer + offset);
      offset += entry->d_reclen;
      const std::string_view name(entry->d_name);
      if (name == "." || name == "..") {
        continue;
      }
      const int error = RemoveEntry(entry->d_name, entry->d_type);
      if (error == ENOTEMPTY || error == EEXIST) {
        levels_.back().pending.emplace_back(name);
      } else if (error != 0) {
        Fail(error, "remove", name);
      }
    }
  }
}

void Removal::Enter(std::string name) {
  const int at = levels_.empty() ? parent_ : levels_.back().fd.get();
  Level child;
  child.fd = UniqueFd(OpenDirectory(at, name.c_str()));
  if (!child.fd.valid()) {
    if (!Gone(errno)) {
      Fail(errno, "open directory", name);
    }
    return;
  }
  if (levels_.size() >= kHeldLevels) {
    struct stat stat {};
    if (::fstat(child.fd.get(), &stat) != 0) {
      Fail(errno, "stat", name);
      return;
    }
    child.inode = {stat.st_dev, stat.st_ino};
  }
  if (levels_.size() > kHeldLevels) {
    levels_.back().fd.Reset();
  }
  child.name = std::move(name);
  levels_.push_back(std::move(child));
  Scan();
}

bool Removal::Reopen(Level& above, int below) {
  above.fd = UniqueFd(OpenDirectory(below, ".."));
  struct stat stat {};
  return above.fd.valid() && ::fstat(above.fd.get(), &stat) == 0 &&
         stat.st_dev == above.inode.device && stat.st_ino == above.inode.number;
}

void Removal::Leave() {
  Level left = std::move(levels_.back());
  levels_.pop_back();
  if (levels_.size() > kHeldLevels && !Reopen(levels_.back(), left.fd.get())) {
    // Somebody has moved the directory that was emptied. Back to where the path is certain: what is
    // left below shows there as a directory that is not empty, and is scanned again.
    levels_.resize(kHeldLevels);
    return;
  }
  if (left.failed) {
    if (!levels_.empty()) {
      levels_.back().failed = true;
    }
    return;
  }
  const int error = Unlink(left.name.c_str(), AT_REMOVEDIR);
  if (error == 0) {
    return;
  }
  if ((error != ENOTEMPTY && error != EEXIST) || ++left.rescans > kMaxRescans) {
    Fail(error, "remove", left.name);
    return;
  }
  // Opened anew: btrfs shows a descriptor only what was there when it was opened.
  left.fd = UniqueFd(OpenDirectory(left.fd.get(), "."));
  if (!left.fd.valid()) {
    Fail(errno, "open directory", left.name);
    return;
  }
  if (levels_.size() > kHeldLevels) {
    levels_.back().fd.Reset();
  }
  levels_.push_back(std::move(left));
  Scan();
}

Status Removal::Run() {
  const int error = RemoveEntry(name_.c_str(), DT_DIR);
  if (error == ENOTEMPTY || error == EEXIST) {
    Enter(name_);
  } else if (error != 0) {
    Fail(error, "remove", name_);
  }
  while (!levels_.empty()) {
    std::vector<std::string>& pending = levels_.back().pending;
    if (pending.empty()) {
      Leave();
      continue;
    }
    std::string name = std::move(pending.back());
    pending.pop_back();
    Enter(std::move(name));
  }
  return first_error_;
}

}  // namespace

Status RemoveTree(int parent, const std::string& name) {
  return Removal(parent, name).Run();
}

}  // namespace strata
