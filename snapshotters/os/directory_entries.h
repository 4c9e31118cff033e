// SPDX-License-Identifier: Apache-2.0
//
// The names in one directory. Stateless, safe from any thread.
#pragma once

#include <string>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

// All names but "." and "..", in the file system's order, read through a descriptor of its own.
StatusOr<std::vector<std::string>> DirectoryEntries(int dirfd);

}  // namespace strata
