// SPDX-License-Identifier: Apache-2.0
//
// Space that a tree takes, as `du --block-size=1` counts it. Stateless, safe from any thread.
#pragma once

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

// Walks the directory `dirfd` (itself included): st_blocks * 512 of every distinct (device, inode).
// O_PATH will do. Entries that vanish during the walk are left out: the tree may be in use.
// Symlinks are counted, never followed; what is mounted inside is not entered, and its mount point
// not counted. Memory: one entry for each inode with several links, and the names of the
// directories still to enter; depth is bounded only by the tree (DirectoryWalk). Cancelled when
// `call` is.
StatusOr<Usage> DiskUsage(const CallContext& call, int dirfd);

}  // namespace strata
