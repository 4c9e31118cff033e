// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/tree_remove.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/directory_walk.h"

namespace strata {
namespace {

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
  Removal(const CallContext& call, int parent, std::string name)
      : call_(call), parent_(parent), name_(std::move(name)) {}

  Status Run();

 private:
  // Of a level of the walk.
  struct Progress {
    int rescans = 0;
    bool unlocked = false;
    bool failed = false;  // something in it stays, and the reason is recorded
  };

  // These return 0 or an errno; what is gone already is 0.
  int RemoveEntry(const char* name, unsigned char type);
  int Unlink(const char* name, int flags);

  // Removes what is in the deepest level, except for the directories that are not empty.
  void Scan();
  void Open(const std::string& name);
  void Enter(const std::string& name, UniqueFd fd, const Progress& progress);
  void Leave();
  void Fail(int error, std::string_view verb, std::string_view name);
  // Where the deepest level is.
  [[nodiscard]] int at() const { return walk_.depth() == 0 ? parent_ : walk_.fd(); }

  const CallContext& call_;
  const int parent_;
  const std::string name_;
  DirectoryWalk walk_{OpenDirectory};
  std::vector<Progress> levels_;  // as deep as the walk
  Status first_error_;
};

void Removal::Fail(int error, std::string_view verb, std::string_view name) {
  if (!levels_.empty()) {
    levels_.back().failed = true;
  }
  if (first_error_.ok()) {
    first_error_ = ErrnoStatus(error, std::string(verb) + " " + ShowName(walk_.PathOf(name)));
  }
}

int Removal::Unlink(const char* name, int flags) {
  if (::unlinkat(at(), name, flags) == 0 || Gone(errno)) {
    return 0;
  }
  // The directory that holds the name may forbid it; one inside the tree is ours to change.
  if (errno != EACCES || levels_.empty() || std::exchange(levels_.back().unlocked, true) ||
      !Unlock(at())) {
    return errno;
  }
  return ::unlinkat(at(), name, flags) == 0 || Gone(errno) ? 0 : errno;
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
  EntryReader entries(walk_.fd());
  for (const dirent64* entry = entries.Next(); entry != nullptr && !call_.cancelled();
       entry = entries.Next()) {
    const int error = RemoveEntry(entry->d_name, entry->d_type);
    if (error == ENOTEMPTY || error == EEXIST) {
      walk_.Postpone(entry->d_name);
    } else if (error != 0) {
      Fail(error, "remove", entry->d_name);
    }
  }
  if (entries.error() != 0 && !Gone(entries.error())) {
    Fail(entries.error(), "read directory", "");
  }
}

void Removal::Open(const std::string& name) {
  UniqueFd fd(OpenDirectory(at(), name.c_str()));
  if (fd.valid()) {
    Enter(name, std::move(fd), {});
  } else if (!Gone(errno)) {
    Fail(errno, "open directory", name);
  }
}

void Removal::Enter(const std::string& name, UniqueFd fd, const Progress& progress) {
  if (const int error = walk_.Enter(name, std::move(fd)); error != 0) {
    Fail(error, "stat", name);
    return;
  }
  levels_.push_back(progress);
  Scan();
}

void Removal::Leave() {
  const DirectoryWalk::Left left = walk_.Leave();
  Progress progress = levels_.back();
  levels_.resize(walk_.depth());
  if (left.error != 0) {
    // Somebody has moved the directory that was emptied. Back to where the path is certain: what is
    // left below shows there as a directory that is not empty, and is scanned again.
    return;
  }
  if (progress.failed) {
    if (!levels_.empty()) {
      levels_.back().failed = true;
    }
    return;
  }
  const int error = Unlink(left.name.c_str(), AT_REMOVEDIR);
  if (error == 0) {
    return;
  }
  if ((error != ENOTEMPTY && error != EEXIST) || ++progress.rescans > kMaxRescans) {
    Fail(error, "remove", left.name);
    return;
  }
  // Opened anew: btrfs shows a descriptor only what was there when it was opened.
  UniqueFd again(OpenDirectory(left.fd.get(), "."));
  if (!again.valid()) {
    Fail(errno, "open directory", left.name);
    return;
  }
  Enter(left.name, std::move(again), progress);
}

Status Removal::Run() {
  STRATA_RETURN_IF_ERROR(call_.Check());
  const int error = RemoveEntry(name_.c_str(), DT_DIR);
  if (error == ENOTEMPTY || error == EEXIST) {
    Open(name_);
  } else if (error != 0) {
    Fail(error, "remove", name_);
  }
  while (walk_.depth() > 0) {
    STRATA_RETURN_IF_ERROR(call_.Check());
    if (const auto name = walk_.TakePostponed(); name.has_value()) {
      Open(*name);
    } else {
      Leave();
    }
  }
  return first_error_;
}

}  // namespace

Status RemoveTree(int parent, const std::string& name) {
  return RemoveTree(CallContext(), parent, name);
}

Status RemoveTree(const CallContext& call, int parent, const std::string& name) {
  return Removal(call, parent, name).Run();
}

}  // namespace strata
