// SPDX-License-Identifier: Apache-2.0
//
// Which layers a snapshot is on, found out anew from the parents' names. Pure but for `find`.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/core/meta_store.h"

namespace strata {

// As MetaStore::Find and MetaTransaction::Find.
using FindRecord = std::function<StatusOr<std::optional<SnapshotRecord>>(std::string_view name)>;

// Whether the record's chain is its parent and the parent's chain. True of all records: then all
// chains are right.
StatusOr<bool> FitsParent(const SnapshotRecord& record, const FindRecord& find);

struct ParentChain {
  std::vector<SnapshotId> ids;  // the immediate parent first
  std::string lost;             // why there is no such chain, in words; empty: there is
};

// Follows the names of parents up to a snapshot without one.
StatusOr<ParentChain> ChainOf(const SnapshotRecord& record, const FindRecord& find);

// "7, 5, 2", or "nothing"; only the first ones of many.
std::string ShowChain(const std::vector<SnapshotId>& ids);

}  // namespace strata
