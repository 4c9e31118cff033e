// SPDX-License-Identifier: Apache-2.0
//
// A complete layer needs nobody to serve it: the kernel's EROFS reads its image file. Stateless,
// safe from any thread.
#pragma once

#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/layer_image.h"

namespace strata {

// Mounts the image file itself on `target`, by mount(2) and not by way of a loop device (Linux
// 6.12), over whatever is mounted there. That stays, covered: an overlay that somebody mounts right
// now may have looked it up already, and a mount that is detached then fails it with EINVAL
// (clone_private_mount in fs/namespace.c). Unimplemented: not on this kernel, file system or stack
// of mounts. FailedPrecondition: the layer is not complete.
Status ShowComplete(const LayerImage& image, const std::string& image_path,
                    const std::string& target);

}  // namespace strata
