// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fill_share.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

constexpr FillShare::Limits kLimits = {.bytes = 3200, .request_bytes = 400, .requests = 12};

TEST(FillShareTest, GivesAnIdleMachineToAnyClass) {
  const FillShare share(kLimits);
  for (const FillClass fill_class :
       {FillClass::kDemand, FillClass::kReadAhead, FillClass::kPrefetch, FillClass::kBackground}) {
    EXPECT_EQ(share.Room(fill_class, 0), 400);
  }
}

TEST(FillShareTest, GivesLowerClassesLess) {
  FillShare share(kLimits);
  for (int i = 0; i < 2; ++i) {
    share.Start(FillClass::kBackground, 400);
  }
  EXPECT_EQ(share.Room(FillClass::kBackground, 0), 0);
  for (int i = 0; i < 2; ++i) {
    share.Start(FillClass::kPrefetch, 400);
  }
  EXPECT_EQ(share.Room(FillClass::kPrefetch, 0), 0);
  for (int i = 0; i < 2; ++i) {
    share.Start(FillClass::kReadAhead, 400);
  }
  EXPECT_EQ(share.Room(FillClass::kReadAhead, 0), 0);
  EXPECT_EQ(share.Room(FillClass::kDemand, 0), 400);
}

TEST(FillShareTest, LetsEveryClassHaveOneRequestUnderWay) {
  FillShare share(kLimits);
  for (int i = 0; i < 8; ++i) {
    share.Start(FillClass::kDemand, 400);
  }
  EXPECT_EQ(share.Room(FillClass::kDemand, 0), 0);
  EXPECT_EQ(share.Room(FillClass::kBackground, 0), 100);
  share.Start(FillClass::kBackground, 100);
  EXPECT_EQ(share.Room(FillClass::kBackground, 0), 0);
}

TEST(FillShareTest, CountsRequestsOfLowerClassesOnly) {
  FillShare share({.bytes = 1 << 20, .request_bytes = 400, .requests = 2});
  share.Start(FillClass::kPrefetch, 1);
  EXPECT_EQ(share.Room(FillClass::kPrefetch, 0), 400);
  share.Start(FillClass::kPrefetch, 1);
  EXPECT_EQ(share.Room(FillClass::kPrefetch, 0), 0);
  for (int i = 0; i < 100; ++i) {
    share.Start(FillClass::kDemand, 1);
    EXPECT_EQ(share.Room(FillClass::kDemand, 0), 400);
  }
  share.EndRequest(FillClass::kPrefetch);
  EXPECT_EQ(share.Room(FillClass::kPrefetch, 0), 400);
}

TEST(FillShareTest, CountsBytesUntilTheyAreDecoded) {
  FillShare share(kLimits);
  share.Start(FillClass::kBackground, 400);
  share.Start(FillClass::kBackground, 400);
  share.EndRequest(FillClass::kBackground);
  EXPECT_EQ(share.Room(FillClass::kBackground, 0), 0);
  share.Release(400);
  EXPECT_EQ(share.Room(FillClass::kBackground, 0), 400);
}

TEST(FillShareTest, CountsHeldMemory) {
  FillShare share(kLimits);
  share.Start(FillClass::kDemand, 400);
  EXPECT_EQ(share.Room(FillClass::kDemand, 2500), 300);
  EXPECT_EQ(share.Room(FillClass::kDemand, 3000), 0);
}

}  // namespace
}  // namespace strata
