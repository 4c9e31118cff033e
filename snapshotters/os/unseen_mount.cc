// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/unseen_mount.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <thread>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {
namespace {

// In a thread whose mount namespace is its own.
StatusOr<UniqueFd> MountHere(std::span<const Mount> mounts, const std::string& target) {
  // A namespace of its own implies CLONE_FS of the thread (unshare(2)).
  if (::unshare(CLONE_NEWNS) != 0) {
    return ErrnoStatus(errno, "unshare the mount namespace");
  }
  // What is unmounted out there goes here, too, so that no mount is kept busy by us.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
    return ErrnoStatus(errno, "make the mounts of the namespace slaves");
  }
  STRATA_RETURN_IF_ERROR(MountAll(mounts, target));
  StatusOr<UniqueFd> top = OpenFile(target, O_RDONLY | O_DIRECTORY);
  const Status unmounted = Unmount(target, /*lazy=*/true);
  return top.ok() && !unmounted.ok() ? StatusOr<UniqueFd>(unmounted) : std::move(top);
}

}  // namespace

StatusOr<UniqueFd> MountUnseen(std::span<const Mount> mounts) {
  std::string target = "/tmp/strata-mount-XXXXXX";
  if (::mkdtemp(target.data()) == nullptr) {
    return ErrnoStatus(errno, "make a directory to mount on");
  }
  StatusOr<UniqueFd> top = MakeStatus(StatusCode::kUnavailable, "the mounting thread did not run");
  std::thread([&] { top = MountHere(mounts, target); }).join();
  (void)::rmdir(target.c_str());  // an empty directory is no harm
  return top;
}

}  // namespace strata
