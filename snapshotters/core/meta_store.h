// SPDX-License-Identifier: Apache-2.0
//
// MetaStore: the durable table of snapshots. It knows records, not rules; the rules of the tree are
// in core/snapshot_tree, the same for every implementation. Safe from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

// Number of a snapshot: the name of its directory. From 1; never used twice in the life of a root.
using SnapshotId = uint64_t;

struct SnapshotRecord {
  SnapshotId id = 0;
  SnapshotInfo info;
  std::vector<SnapshotId> chain;  // ids of the parents, the immediate one first
  Usage usage;                    // of a committed snapshot; zero for the others

  bool operator==(const SnapshotRecord&) const = default;
};

// What a mutation sees and changes. Valid only during the call that received it.
class MetaTransaction {
 public:
  virtual ~MetaTransaction() = default;
  virtual StatusOr<std::optional<SnapshotRecord>> Find(std::string_view name) = 0;
  virtual StatusOr<bool> HasChildren(SnapshotId id) = 0;
  // Adds a record, or replaces the one with the same id; the indexes of name and parent follow.
  virtual Status Put(const SnapshotRecord& record) = 0;
  virtual Status Erase(const SnapshotRecord& record) = 0;
};

class MetaStore {
 public:
  // Runs with no I/O of its own but the transaction's: no file, no network, no lock of the caller.
  // It may be run again in another transaction, as if it had not been before.
  using Mutation = std::function<Status(MetaTransaction&)>;

  virtual ~MetaStore() = default;

  // Runs `mutation` and waits until its effect is durable. When it fails, nothing of it is left and
  // that error is the result; mutations of other callers that shared the commit are not touched.
  // When the commit itself fails (disk full), that is the result of all that shared it, and nothing
  // of them is left.
  virtual Status Mutate(const Mutation& mutation) = 0;

  // Reads never wait for a writer and see all mutations that were answered before.
  virtual StatusOr<std::optional<SnapshotRecord>> Find(std::string_view name) = 0;

  // At most `limit` records with ids above `after`, by ascending id.
  virtual StatusOr<std::vector<SnapshotRecord>> Page(SnapshotId after, size_t limit) = 0;

  // All ids, ascending.
  virtual StatusOr<std::vector<SnapshotId>> Ids() = 0;

  // A number that was never handed out before, also not before a crash.
  virtual StatusOr<SnapshotId> NextId() = 0;

  // Every number that this instance hands out is at least this; those of earlier runs are below.
  [[nodiscard]] virtual SnapshotId FirstNewId() const = 0;
};

}  // namespace strata
