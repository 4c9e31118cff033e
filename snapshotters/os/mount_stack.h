// SPDX-License-Identifier: Apache-2.0
//
// Mounts that cover one another on one directory. Stateless; safe from any thread.
#pragma once

#include <string>

#include "snapshotters/base/status.h"

namespace strata {

// Unmounts all but the topmost. What is covered cannot be reached by a path, so all go and a clone
// of the topmost, made before, comes back (open_tree(2), Linux 5.2): for some microseconds nothing
// is mounted there. On error everything is as it was, or, when the message says so, nothing is
// mounted any more.
Status KeepTopmost(const std::string& target);

}  // namespace strata
