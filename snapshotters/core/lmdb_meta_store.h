// SPDX-License-Identifier: Apache-2.0
//
// The MetaStore on disk: one LMDB environment (FORMAT.md). Mutations that wait at the same time
// share one LMDB transaction and its one flush of the disk. Safe from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/core/meta_store.h"

namespace strata {

// The number of FORMAT.md. A reader of format N refuses what is above N. A store of an older format
// is read as it is, and becomes one of this format with a daemon's first mutation.
inline constexpr uint32_t kMetaStoreFormat = 2;

enum class LmdbUse : uint8_t {
  kServe,   // by a daemon
  kRead,    // nothing is written, no byte of any file: Mutate and NextId are FailedPrecondition
  kRepair,  // on a root that no daemon serves, by one thread: without a lock file
};

struct LmdbOptions {
  std::string directory;  // exists, and is nobody else's: the caller holds the root's lock
  std::string kind;       // kind of snapshotter that owns it, e.g. "overlayfs"
  std::string uuid;       // of the root
  // A database that is not there yet is made. Without this its absence is DataLoss: the root has
  // been in use, so an empty one would make every snapshot an orphan.
  bool create = false;
  // Walk the whole database in a child process first, so that damage becomes an error and not a
  // signal in this one (LMDB maps the file and trusts it).
  bool verify = true;
  // A folder in memory for LMDB's lock file, which is a shared mapping: on a full copy-on-write
  // file system a write to one ends the process by SIGBUS (seen on btrfs). Only this process uses
  // the database, so the file need not be where the data is. Empty: beside the data.
  std::string lock_directory;
  LmdbUse use = LmdbUse::kServe;
};

// A transaction that was durable and not yet current when the power went is made current.
//
// DataLoss: the database is damaged or missing. FailedPrecondition: it was written by a newer
// strata, or belongs to another kind or root; or there is such a transaction, and it is opened for
// reading. ResourceExhausted: disk full.
StatusOr<std::unique_ptr<MetaStore>> OpenLmdbMetaStore(const LmdbOptions& options);

}  // namespace strata
