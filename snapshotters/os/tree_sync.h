// SPDX-License-Identifier: Apache-2.0
//
// TreeSync: makes what was written below a directory durable. Stateless, safe from any thread.
#pragma once

#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

// What is made durable before a snapshot is recorded as committed.
enum class SyncAtCommit {
  kNone,        // nothing: whoever wrote it has seen to that, or it may be lost with the power
  kLayer,       // every file and directory of the snapshot
  kFilesystem,  // the whole file system that it is on
};

// kLayer: fsync(2) of every regular file and directory below `dirfd`, and of itself, after the
// writing of all files of a directory was started; entries of other kinds are durable with their
// directory. What vanishes meanwhile is left out. On error some of it may be durable.
Status SyncTree(const CallContext& call, int dirfd, SyncAtCommit how);

}  // namespace strata
