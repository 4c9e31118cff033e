// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/mount_stack.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {

// Both calls go by number: C libraries of the kernels that lack them lack them too.
Status KeepTopmost(const std::string& target) {
  const UniqueFd topmost(static_cast<int>(
      ::syscall(SYS_open_tree, AT_FDCWD, target.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
  if (!topmost.valid()) {
    return ErrnoStatus(errno, "clone what is mounted on '" + target + "'");
  }
  Status status;
  do {
    status = Unmount(target, /*lazy=*/true);
  } while (status.ok());
  if (status.code() != StatusCode::kNotFound) {
    return status;
  }
  if (::syscall(SYS_move_mount, topmost.get(), "", AT_FDCWD, target.c_str(),
                MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return ErrnoStatus(errno,
                       "mount on '" + target + "' again what was topmost; nothing is there now");
  }
  return OkStatus();
}

}  // namespace strata
