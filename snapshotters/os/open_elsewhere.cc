// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/open_elsewhere.h"

#include <fcntl.h>
#include <signal.h>

#include <cerrno>

namespace strata {

StatusOr<bool> IsOpenElsewhere(int fd) {
  // Whoever opens the file while we have the lease makes the kernel send a signal; SIGIO, which it
  // is unless told otherwise, ends a process, SIGURG is ignored (signal(7)).
  if (::fcntl(fd, F_SETSIG, SIGURG) != 0) {
    return ErrnoStatus(errno, "set the signal of a lease");
  }
  if (::fcntl(fd, F_SETLEASE, F_WRLCK) != 0) {
    if (errno == EAGAIN) {
      return true;
    }
    return ErrnoStatus(errno, "take a lease");
  }
  if (::fcntl(fd, F_SETLEASE, F_UNLCK) != 0) {
    return ErrnoStatus(errno, "give a lease back");
  }
  return false;
}

}  // namespace strata
