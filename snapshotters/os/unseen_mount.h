// SPDX-License-Identifier: Apache-2.0
//
// A mount that nobody else sees: reached by its descriptor alone, and gone with it, however the
// process ends. Stateless; safe from any thread.
#pragma once

#include <span>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

// The top of what MountAll makes of `mounts`, open for reading. It is mounted in a mount namespace
// of its own, which ends with the call; the server of a FUSE mount ends with the descriptor. Needs
// CAP_SYS_ADMIN in the user namespace. Errors as MountAll's.
StatusOr<UniqueFd> MountUnseen(std::span<const Mount> mounts);

}  // namespace strata
