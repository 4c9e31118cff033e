// SPDX-License-Identifier: Apache-2.0
//
// The rules of the snapshot tree as functions over one transaction: which calls are allowed, in
// which order they are checked, and what they change. Pure but for the transaction.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/core/snapshotter.h"

namespace strata::tree {

// The parent of a new snapshot: NotFound when missing, InvalidArgument when not committed.
StatusOr<SnapshotRecord> FindParent(MetaTransaction& txn, std::string_view parent);
Status CheckParent(std::string_view parent, const std::optional<SnapshotRecord>& record);

// Adds `kind` (view or active) snapshot `key` under number `id`.
StatusOr<SnapshotRecord> Create(MetaTransaction& txn, SnapshotId id, Kind kind,
                                std::string_view key, std::string_view parent, const Labels& labels,
                                TimeNs now);

// Adds a committed snapshot under number `id`: one whose content is there without having been an
// active of ours.
StatusOr<SnapshotRecord> CreateCommitted(MetaTransaction& txn, SnapshotId id, std::string_view name,
                                         std::string_view parent, const Labels& labels,
                                         const Usage& usage, TimeNs now);

// Whether `key` could be committed to `name` now; the same checks, in the same order, as Commit.
Status CheckCommit(std::string_view name, bool name_exists, std::string_view key,
                   const std::optional<SnapshotRecord>& active);

// Commits; the number stays.
Status Commit(MetaTransaction& txn, std::string_view name, std::string_view key,
              const CommitOptions& options, const Usage& usage, TimeNs now);

// Removes and returns what was there, so that its directory can go.
StatusOr<SnapshotRecord> Remove(MetaTransaction& txn, std::string_view key);

// See Snapshotter::Update.
StatusOr<SnapshotInfo> Update(MetaTransaction& txn, const SnapshotInfo& info,
                              const std::vector<std::string>& mask, TimeNs now);

// Labels without those whose value is empty: an empty value means "not there".
Labels WithoutEmpty(const Labels& labels);

Status NoSuchSnapshot(std::string_view name);
Status NameTaken(std::string_view name);

}  // namespace strata::tree
