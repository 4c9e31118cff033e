// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/complete_mount.h"

#include "snapshotters/lazy/erofs_mount.h"

namespace strata {

Status ShowComplete(const LayerImage& image, const std::string& image_path,
                    const std::string& target) {
  if (!image.extents().complete()) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "mount layer " + std::to_string(image.number()) + ": it is not complete");
  }
  return MountErofsImage(image_path, target);
}

}  // namespace strata
