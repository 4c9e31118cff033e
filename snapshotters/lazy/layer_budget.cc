// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_budget.h"

#include <algorithm>
#include <tuple>

namespace strata {

std::vector<uint64_t> ChooseEvictions(std::vector<BudgetEntry> layers, uint64_t budget_bytes,
                                      bool all) {
  uint64_t total = 0;
  for (const BudgetEntry& layer : layers) {
    total += layer.bytes;
  }
  std::sort(layers.begin(), layers.end(), [](const BudgetEntry& a, const BudgetEntry& b) {
    return std::tie(a.last_used, a.number) < std::tie(b.last_used, b.number);
  });
  std::vector<uint64_t> chosen;
  for (const BudgetEntry& layer : layers) {
    const bool over = budget_bytes != 0 && total > budget_bytes;
    if (!all && !over) {
      break;
    }
    if (layer.evictable) {
      chosen.push_back(layer.number);
      total -= layer.bytes;
    }
  }
  return chosen;
}

}  // namespace strata
