// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/replace_mount.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {
namespace {

// move_mount(2), Linux 6.5; not in the headers of Debian 12.
constexpr unsigned kMoveMountBeneath = 0x200;

Status Failed(const Mount& mount, const std::string& target, const char* step) {
  return ErrnoStatus(
      errno, "mount " + mount.type + " '" + mount.source + "' on '" + target + "': " + step);
}

// The mount, attached to nothing.
StatusOr<UniqueFd> MakeDetached(const Mount& mount, const std::string& target) {
  const UniqueFd context(
      static_cast<int>(::syscall(SYS_fsopen, mount.type.c_str(), FSOPEN_CLOEXEC)));
  if (!context.valid()) {
    return Failed(mount, target, "fsopen");
  }
  const bool read_only =
      std::find(mount.options.begin(), mount.options.end(), "ro") != mount.options.end();
  const int fd = context.get();
  if (::syscall(SYS_fsconfig, fd, FSCONFIG_SET_STRING, "source", mount.source.c_str(), 0) != 0 ||
      (read_only && ::syscall(SYS_fsconfig, fd, FSCONFIG_SET_FLAG, "ro", nullptr, 0) != 0) ||
      ::syscall(SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return Failed(mount, target, "fsconfig");
  }
  UniqueFd made(static_cast<int>(
      ::syscall(SYS_fsmount, fd, FSMOUNT_CLOEXEC, read_only ? MOUNT_ATTR_RDONLY : 0)));
  if (!made.valid()) {
    return Failed(mount, target, "fsmount");
  }
  return made;
}

bool Attach(int made, const std::string& target, unsigned flags) {
  return ::syscall(SYS_move_mount, made, "", AT_FDCWD, target.c_str(),
                   MOVE_MOUNT_F_EMPTY_PATH | flags) == 0;
}

}  // namespace

Status ReplaceMount(const Mount& mount, const std::string& target) {
  const StatusOr<UniqueFd> made = MakeDetached(mount, target);
  if (!made.ok()) {
    const int error = StatusErrno(made.status()).value_or(0);
    return error == ENOSYS ? MountAll({&mount, 1}, target) : made.status();
  }
  if (Attach(made->get(), target, kMoveMountBeneath)) {
    return Unmount(target, /*lazy=*/true);
  }
  // EINVAL: nothing is mounted there, an older kernel, or propagation.
  return Attach(made->get(), target, 0) ? OkStatus() : Failed(mount, target, "move_mount");
}

}  // namespace strata
