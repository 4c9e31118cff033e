// SPDX-License-Identifier: Apache-2.0
#include "client/file_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

struct flock WholeFile(int type) {
  struct flock lock {};
  lock.l_type = static_cast<int16_t>(type);
  lock.l_whence = SEEK_SET;
  return lock;
}

bool IsNotThere(const Status& status) {
  return StatusErrno(status) == ENOENT;
}

}  // namespace

StatusOr<std::optional<FileLock>> FileLock::TryOpen(int dirfd, const std::string& name, Mode mode,
                                                    int flags) {
  constexpr mode_t kFileMode = 0600;
  while (true) {
    STRATA_ASSIGN_OR_RETURN(UniqueFd fd, OpenAt(dirfd, name, O_RDWR | flags, kFileMode));
    struct flock lock = WholeFile(mode == Mode::kShared ? F_RDLCK : F_WRLCK);
    if (::fcntl(fd.get(), F_OFD_SETLK, &lock) != 0) {
      if (errno == EAGAIN || errno == EACCES) {
        return std::optional<FileLock>();
      }
      return ErrnoStatus(errno, "lock " + ShowName(name));
    }
    struct stat found {};
    if (::fstat(fd.get(), &found) != 0) {
      return ErrnoStatus(errno, "stat " + ShowName(name));
    }
    // The one before us may have removed the file between our open and our lock.
    if (found.st_nlink > 0) {
      return std::optional<FileLock>(FileLock(std::move(fd)));
    }
  }
}

StatusOr<std::optional<FileLock>> FileLock::Try(int dirfd, const std::string& name, Mode mode) {
  return TryOpen(dirfd, name, mode, O_CREAT);
}

StatusOr<std::optional<FileLock>> FileLock::TryExisting(int dirfd, const std::string& name,
                                                        Mode mode) {
  StatusOr<std::optional<FileLock>> lock = TryOpen(dirfd, name, mode, 0);
  if (!lock.ok() && IsNotThere(lock.status())) {
    return std::optional<FileLock>();
  }
  return lock;
}

StatusOr<bool> FileLock::IsLocked(int dirfd, const std::string& name) {
  StatusOr<UniqueFd> fd = OpenAt(dirfd, name, O_RDONLY);
  if (!fd.ok()) {
    return IsNotThere(fd.status()) ? StatusOr<bool>(false) : StatusOr<bool>(fd.status());
  }
  struct flock lock = WholeFile(F_WRLCK);
  if (::fcntl(fd->get(), F_OFD_GETLK, &lock) != 0) {
    return ErrnoStatus(errno, "look at the lock of " + ShowName(name));
  }
  return lock.l_type != F_UNLCK;
}

void FileLock::Remove(int dirfd, const std::string& name) {
  struct flock lock = WholeFile(F_WRLCK);
  if (fd_.valid() && ::fcntl(fd_.get(), F_OFD_SETLK, &lock) == 0) {
    (void)::unlinkat(dirfd, name.c_str(), 0);  // an empty file without a lock means nothing
  }
  fd_.Reset();
}

}  // namespace strata
