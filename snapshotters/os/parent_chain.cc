// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/parent_chain.h"

#include <algorithm>
#include <cstddef>
#include <unordered_set>
#include <utility>

namespace strata {

StatusOr<bool> FitsParent(const SnapshotRecord& record, const FindRecord& find) {
  if (record.info.parent.empty()) {
    return record.chain.empty();
  }
  STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> parent, find(record.info.parent));
  return parent.has_value() && parent->info.kind == Kind::kCommitted && !record.chain.empty() &&
         record.chain.front() == parent->id && record.chain.size() == parent->chain.size() + 1 &&
         std::equal(parent->chain.begin(), parent->chain.end(), record.chain.begin() + 1);
}

StatusOr<ParentChain> ChainOf(const SnapshotRecord& record, const FindRecord& find) {
  ParentChain chain;
  if (record.info.parent.empty() && !record.chain.empty()) {
    chain.lost = "it names no parent, but is recorded to be on " + ShowChain(record.chain);
    return chain;
  }
  std::unordered_set<SnapshotId> seen = {record.id};
  std::string name = record.info.parent;
  while (!name.empty()) {
    STRATA_ASSIGN_OR_RETURN(std::optional<SnapshotRecord> parent, find(name));
    if (!parent.has_value()) {
      chain.lost = "there is no snapshot " + ShowName(name) + ", on which it is to be";
    } else if (parent->info.kind != Kind::kCommitted) {
      chain.lost = "snapshot " + ShowName(name) + ", on which it is to be, is not committed";
    } else if (!seen.insert(parent->id).second) {
      chain.lost = "snapshot " + ShowName(name) + ", on which it is to be, is on it";
    }
    if (!chain.lost.empty()) {
      chain.ids.clear();
      return chain;
    }
    chain.ids.push_back(parent->id);
    name = std::move(parent->info.parent);
  }
  return chain;
}

std::string ShowChain(const std::vector<SnapshotId>& ids) {
  constexpr size_t kMost = 8;
  std::string text;
  for (size_t i = 0; i < std::min(ids.size(), kMost); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(ids[i]);
  }
  if (ids.size() > kMost) {
    text += " and " + std::to_string(ids.size() - kMost) + " more";
  }
  return ids.empty() ? "nothing" : text;
}

}  // namespace strata
