// SPDX-License-Identifier: Apache-2.0
//
// A mount in the place of another, without a moment in which neither is there. Stateless, safe from
// any thread.
#pragma once

#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

// Mounts `mount` (a kernel file system; of its options only "ro") on `target` and detaches the
// topmost mount that is there, if there is one: whoever has that open keeps it, whoever looks up
// the path sees the old tree or the new one. Where the kernel cannot slip a mount under another
// (before Linux 6.5, or propagation forbids it) the new one lies over the old one, which stays. On
// error nothing has changed.
Status ReplaceMount(const Mount& mount, const std::string& target);

}  // namespace strata
