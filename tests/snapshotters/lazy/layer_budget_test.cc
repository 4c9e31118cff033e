// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<BudgetEntry> Layers() {
  return {{.number = 1, .bytes = 10, .last_used = 30, .evictable = true},
          {.number = 2, .bytes = 10, .last_used = 10, .evictable = true},
          {.number = 3, .bytes = 10, .last_used = 5, .evictable = false},
          {.number = 4, .bytes = 10, .last_used = 20, .evictable = true}};
}

TEST(LayerBudgetTest, EvictsNothingWithinTheBudget) {
  EXPECT_THAT(ChooseEvictions(Layers(), 40, /*all=*/false), IsEmpty());
}

TEST(LayerBudgetTest, NoBudgetIsNoLimit) {
  EXPECT_THAT(ChooseEvictions(Layers(), 0, /*all=*/false), IsEmpty());
}

TEST(LayerBudgetTest, EvictsTheLeastRecentlyUsedUntilItHolds) {
  EXPECT_THAT(ChooseEvictions(Layers(), 39, /*all=*/false), ElementsAre(2));
  EXPECT_THAT(ChooseEvictions(Layers(), 20, /*all=*/false), ElementsAre(2, 4));
}

TEST(LayerBudgetTest, LeavesWhatIsNeededEvenAboveTheBudget) {
  EXPECT_THAT(ChooseEvictions(Layers(), 1, /*all=*/false), ElementsAre(2, 4, 1));
}

TEST(LayerBudgetTest, EvictsAllThatIsNotNeeded) {
  EXPECT_THAT(ChooseEvictions(Layers(), 0, /*all=*/true), ElementsAre(2, 4, 1));
}

}  // namespace
}  // namespace strata
