// SPDX-License-Identifier: Apache-2.0
//
// ImageFiles: how the image files of layers are opened. Where the kernel asks us before anybody
// reads an image (erofs_presenter), a descriptor opened as usual would make our own reads and
// writes wait for ourselves. Safe from any thread.
#pragma once

#include <fcntl.h>

#include <string>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class ImageFiles {
 public:
  virtual ~ImageFiles() = default;
  // The regular file `name` in `directory_fd`, for reading and writing, by a descriptor that raises
  // no events. NotFound, or what open(2) says.
  virtual StatusOr<UniqueFd> Open(int directory_fd, const std::string& name) {
    // O_NONBLOCK: a fifo in the place of the file must not hold us up.
    return OpenAt(directory_fd, name, O_RDWR | O_NONBLOCK);
  }
};

}  // namespace strata
