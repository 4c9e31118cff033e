// SPDX-License-Identifier: Apache-2.0
//
// LayerLinks: which snapshot is which lazy layer. It is on disk as a symlink in the snapshot's
// folder, snapshots/<id>/layer -> ../../l/<n>, and nowhere else, so the two cannot disagree. Safe
// from any thread; holds no lock across I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <unordered_map>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/meta_store.h"

namespace strata {

class LayerLinks {
 public:
  // `snapshots_fd` must outlive this.
  explicit LayerLinks(int snapshots_fd) : snapshots_fd_(snapshots_fd) {}

  // Makes snapshot folder `id` stand for layer `number`, durably.
  Status Make(SnapshotId id, uint64_t number);

  // The layer that the snapshot stands for; nothing when it has files of its own. From memory after
  // the first time: what a snapshot is never changes. DataLoss: a link that is none of ours.
  StatusOr<std::optional<uint64_t>> Find(SnapshotId id);

  // The snapshot is gone, and refers to its layer no longer, although its folder may still wait to
  // be removed.
  void Forget(SnapshotId id);

  // All layers that folders stand for, also those of folders without a record that a crash left.
  // Reads the directory.
  [[nodiscard]] StatusOr<std::set<uint64_t>> All() const;

 private:
  [[nodiscard]] StatusOr<std::optional<uint64_t>> Read(const std::string& folder) const;

  const int snapshots_fd_;
  Mutex mutex_;
  std::unordered_map<SnapshotId, std::optional<uint64_t>> known_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace strata
