// SPDX-License-Identifier: Apache-2.0
//
// Which layers go when space is wanted. Pure, safe from any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "snapshotters/base/clock.h"

namespace strata {

struct BudgetEntry {
  uint64_t number = 0;
  uint64_t bytes = 0;
  TimeNs last_used = 0;
  bool evictable = false;  // nobody refers to it and nobody has it in use
};

// The numbers of the layers to evict, in their order: the least recently used of the evictable ones
// until all layers together take at most `budget_bytes`; with `all`, every evictable one. A budget
// of 0 is none.
std::vector<uint64_t> ChooseEvictions(std::vector<BudgetEntry> layers, uint64_t budget_bytes,
                                      bool all);

}  // namespace strata
