// SPDX-License-Identifier: Apache-2.0
//
// Removal of a directory tree by descriptor. Stateless, safe from any thread.
#pragma once

#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

// Removes `name` in directory `parent` with all that is in it; depth bounded only by the tree.
// Symlinks are removed, never followed. What somebody else removes meanwhile is no error, and a
// name that is not there is OK. A directory without permission bits is entered all the same (root,
// or its owner after a chmod). A mount point inside is not entered: EBUSY names it. On error the
// rest of the tree has been tried too; the first error is returned.
Status RemoveTree(int parent, const std::string& name);

// The same, ended before the next entry once `call` is cancelled: Cancelled, with the rest left.
Status RemoveTree(const CallContext& call, int parent, const std::string& name);

}  // namespace strata
