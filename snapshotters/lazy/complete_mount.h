// SPDX-License-Identifier: Apache-2.0
//
// A complete layer needs nobody to serve it: the kernel's EROFS reads its image file. Stateless,
// safe from any thread.
#pragma once

#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/layer_image.h"

namespace strata {

// Mounts the image file itself on `target`, not by way of a loop device (Linux 6.12), in the place
// of what is mounted there (replace_mount.h). Unimplemented: not on this kernel, file system or
// stack of mounts. FailedPrecondition: the layer is not complete.
Status ShowComplete(const LayerImage& image, const std::string& image_path,
                    const std::string& target);

}  // namespace strata
