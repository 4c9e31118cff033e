// SPDX-License-Identifier: Apache-2.0
//
// An image file as a mount of the kernel's EROFS. Stateless, safe from any thread.
#pragma once

#include <cstddef>
#include <string>

#include "snapshotters/base/status.h"

namespace strata {

// How far the kernel reads ahead in files of such a mount, and so asks for at once while the layer
// is not complete: the kernel's own 128 KiB make eight times as many events.
inline constexpr size_t kErofsReadAheadBytes = size_t{1} << 20;

// Mounts the image file itself on `target`, by mount(2) and not by way of a loop device (Linux
// 6.12): the reads of a loop device pass by fanotify. What is mounted there stays, covered.
// Unimplemented: not on this kernel, file system or stack of mounts.
Status MountErofsImage(const std::string& image_path, const std::string& target);

}  // namespace strata
