// SPDX-License-Identifier: Apache-2.0
//
// Whether anybody else has a file open, the kernel included. Stateless, safe from any thread.
#pragma once

#include "snapshotters/base/status.h"

namespace strata {

// Whether the regular file `fd` is open by way of anything but this open file description: another
// open(2), a mount that reads it, a mapping of another description. Descriptors that were
// duplicated from `fd` are the same description, and not more than one call for it at a time.
// Errors: the file system or the system has no leases (fcntl(2), F_SETLEASE).
StatusOr<bool> IsOpenElsewhere(int fd);

}  // namespace strata
