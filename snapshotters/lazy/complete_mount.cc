// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/complete_mount.h"

#include <cerrno>

#include "snapshotters/os/mount_ops.h"

namespace strata {
namespace {

bool MeansCannot(int error) {
  switch (error) {
    case ENODEV:      // no EROFS in this kernel
    case ENOTBLK:     // none from a file (before Linux 6.12), or not in this stack of mounts
    case EINVAL:      // an image that this kernel does not read, or a file that it cannot map
    case EOPNOTSUPP:  // the file system of the image
    case ELOOP:       // too deep a stack
    case EPERM:       // a user namespace
      return true;
    default:
      return false;
  }
}

}  // namespace

Status ShowComplete(const LayerImage& image, const std::string& image_path,
                    const std::string& target) {
  if (!image.extents().complete()) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "mount layer " + std::to_string(image.number()) + ": it is not complete");
  }
  // mount(2) itself: mount(8) would put a loop device in between.
  const Mount mount{"erofs", image_path, "", {"ro"}};
  const Status status = MountAll({&mount, 1}, target);
  return MeansCannot(StatusErrno(status).value_or(0))
             ? MakeStatus(StatusCode::kUnimplemented, StatusMessage(status))
             : status;
}

}  // namespace strata
