// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/file_at.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

namespace strata {
namespace {

Status BadPath(std::string_view path) {
  return MakeStatus(
      StatusCode::kInvalidArgument,
      "path '" + std::string(path) + "': expected a relative path without '..' or NUL bytes");
}

bool ValidBeneath(std::string_view path) {
  if (path.empty() || path.front() == '/' || path.find('\0') != std::string_view::npos) {
    return false;
  }
  size_t start = 0;
  while (start <= path.size()) {
    const size_t end = std::min(path.find('/', start), path.size());
    if (path.substr(start, end - start) == "..") {
      return false;
    }
    start = end + 1;
  }
  return true;
}

// The last component. With O_PATH alone, O_NOFOLLOW gives the symlink itself instead of an error.
StatusOr<UniqueFd> OpenLast(int dirfd, const std::string& name, int flags, mode_t mode) {
  STRATA_ASSIGN_OR_RETURN(UniqueFd fd, OpenAt(dirfd, name, flags, mode));
  if ((flags & O_PATH) != 0 && (flags & O_NOFOLLOW) == 0) {
    struct stat opened {};
    if (::fstat(fd.get(), &opened) != 0) {
      return ErrnoStatus(errno, "stat '" + name + "'");
    }
    if (S_ISLNK(opened.st_mode)) {
      return ErrnoStatus(ELOOP, "open '" + name + "'");
    }
  }
  return fd;
}

// Without openat2: every component but the last is opened as a directory, no symlinks. A symlink
// among them is ENOTDIR here, where openat2 says ELOOP.
StatusOr<UniqueFd> OpenByComponents(int dirfd, std::string_view path, int flags, mode_t mode) {
  UniqueFd current;
  int at = dirfd;
  while (true) {
    const size_t end = path.find('/');
    const size_t next_start = path.find_first_not_of('/', end);
    const std::string component(path.substr(0, end));
    if (next_start == std::string_view::npos) {
      // "a/" names a directory, as the kernel has it.
      const bool slash_at_end = end != std::string_view::npos;
      return OpenLast(at, component, slash_at_end ? flags | O_DIRECTORY : flags, mode);
    }
    path.remove_prefix(next_start);
    STRATA_ASSIGN_OR_RETURN(UniqueFd next, OpenAt(at, component, O_PATH | O_DIRECTORY));
    current = std::move(next);
    at = current.get();
  }
}

}  // namespace

StatusOr<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd.valid()) {
    return ErrnoStatus(errno, "open '" + path + "'");
  }
  return fd;
}

StatusOr<UniqueFd> OpenAt(int dirfd, const std::string& name, int flags, mode_t mode) {
  UniqueFd fd(::openat(dirfd, name.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd.valid()) {
    return ErrnoStatus(errno, "open '" + name + "'");
  }
  return fd;
}

StatusOr<UniqueFd> OpenBeneath(int dirfd, std::string_view path, int flags, mode_t mode) {
  if (!ValidBeneath(path)) {
    return BadPath(path);
  }
  open_how how{};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const std::string name(path);
  UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, dirfd, name.c_str(), &how, sizeof(how))));
  if (fd.valid()) {
    return fd;
  }
  // EPERM too: seccomp profiles older than the system call answer so.
  if (errno == ENOSYS || errno == EPERM) {
    return OpenByComponents(dirfd, path, flags, mode);
  }
  return ErrnoStatus(errno, "open '" + name + "'");
}

StatusOr<std::string> ReadFileAt(int dirfd, const std::string& name, size_t limit) {
  // O_NONBLOCK: a fifo in the place of the file must not hold us up.
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenAt(dirfd, name, O_RDONLY | O_NONBLOCK));
  return ReadAll(fd.get(), name, limit);
}

StatusOr<std::string> ReadAll(int fd, const std::string& name, size_t limit) {
  struct stat found {};
  if (::fstat(fd, &found) != 0) {
    return ErrnoStatus(errno, "stat '" + name + "'");
  }
  if (!S_ISREG(found.st_mode)) {
    return MakeStatus(StatusCode::kFailedPrecondition, "read '" + name + "': expected a file");
  }
  std::string content;
  char buffer[4096];
  while (true) {
    const ssize_t count = ::read(fd, buffer, sizeof(buffer));
    if (count == 0) {
      return content;
    }
    if (count < 0) {
      if (errno == EINTR) {
        continue;
      }
      return ErrnoStatus(errno, "read '" + name + "'");
    }
    content.append(buffer, static_cast<size_t>(count));
    if (content.size() > limit) {
      return MakeStatus(StatusCode::kFailedPrecondition, "read '" + name + "': expected at most " +
                                                             std::to_string(limit) + " bytes");
    }
  }
}

Status WriteAll(int fd, std::string_view bytes, std::string_view what) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count < 0) {
      if (errno == EINTR) {
        continue;
      }
      return ErrnoStatus(errno, "write '" + std::string(what) + "'");
    }
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return OkStatus();
}

Status WriteAllAt(int fd, std::string_view bytes, uint64_t offset, std::string_view what) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0) {
      if (errno == EINTR) {
        continue;
      }
      return ErrnoStatus(errno, "write '" + std::string(what) + "'");
    }
    bytes.remove_prefix(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return OkStatus();
}

Status WriteFileAtomicAt(int dirfd, const std::string& name, std::string_view content,
                         mode_t mode) {
  const std::string temporary = name + ".new";
  auto write = [&]() -> Status {
    STRATA_ASSIGN_OR_RETURN(const UniqueFd fd,
                            OpenAt(dirfd, temporary, O_WRONLY | O_CREAT | O_TRUNC, mode));
    // Neither the umask nor the mode of a file that a crash left behind counts.
    if (::fchmod(fd.get(), mode) != 0) {
      return ErrnoStatus(errno, "chmod '" + temporary + "'");
    }
    STRATA_RETURN_IF_ERROR(WriteAll(fd.get(), content, temporary));
    if (::fsync(fd.get()) != 0) {
      return ErrnoStatus(errno, "fsync '" + temporary + "'");
    }
    if (::renameat(dirfd, temporary.c_str(), dirfd, name.c_str()) != 0) {
      return ErrnoStatus(errno, "rename '" + temporary + "' to '" + name + "'");
    }
    return OkStatus();
  };
  if (Status status = write(); !status.ok()) {
    (void)::unlinkat(dirfd, temporary.c_str(), 0);  // the first error is the one to report
    return status;
  }
  if (::fsync(dirfd) != 0) {
    return ErrnoStatus(errno, "fsync the directory of '" + name + "'");
  }
  return OkStatus();
}

Status MakeDirAt(int dirfd, const std::string& name, mode_t mode) {
  if (::mkdirat(dirfd, name.c_str(), mode) != 0) {
    return ErrnoStatus(errno, "mkdir '" + name + "'");
  }
  struct stat made {};
  if (::fstatat(dirfd, name.c_str(), &made, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, "stat '" + name + "'");
  }
  if ((made.st_mode & 07777) != mode && ::fchmodat(dirfd, name.c_str(), mode, 0) != 0) {
    return ErrnoStatus(errno, "chmod '" + name + "'");
  }
  return OkStatus();
}

Status MakePath(const std::string& path, mode_t mode) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string prefix = path.substr(0, slash);
    if (::mkdir(prefix.c_str(), mode) != 0 && errno != EEXIST) {
      // A read-only or foreign parent answers EROFS or EACCES, not EEXIST, for what it has.
      const int error = errno;
      struct stat found {};
      if (::stat(prefix.c_str(), &found) != 0) {
        return ErrnoStatus(error, "mkdir '" + prefix + "'");
      }
    }
    if (slash == std::string::npos) {
      return OkStatus();
    }
  }
}

}  // namespace strata
