// SPDX-License-Identifier: Apache-2.0
//
// What the files of a layer say of it without its image being opened. Stateless, safe from any
// thread.
#pragma once

#include "snapshotters/base/status.h"

namespace strata {

// Whether every byte of the layer in the folder `directory_fd` is in its image, as `extents` says
// (FORMAT.md). Errors: there is no telling.
StatusOr<bool> IsCompleteOnDisk(int directory_fd);

}  // namespace strata
