// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/usage_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using std::chrono::milliseconds;

constexpr SnapshotId kId = 7;

// A clock that the walks move.
class UsageCacheTest : public ::testing::Test {
 protected:
  UsageCache::Walk Walk(milliseconds takes) {
    return [this, takes]() -> StatusOr<Usage> {
      now_ += takes;
      return Usage{.size = ++walks_, .inodes = 1};
    };
  }
  int64_t Size(milliseconds takes) {
    const StatusOr<Usage> usage = cache_.Get(call_, kId, Walk(takes));
    EXPECT_THAT(usage, IsOk());
    return usage.ok() ? usage->size : -1;
  }

  CallContext call_;
  int64_t walks_ = 0;
  UsageCache::Time now_ = UsageCache::Time() + std::chrono::hours(1);
  UsageCache cache_{{.now = [this] { return now_; }}};
};

TEST_F(UsageCacheTest, AnAnswerHoldsTenTimesAsLongAsItTook) {
  EXPECT_EQ(Size(milliseconds(200)), 1);
  now_ += milliseconds(1'999);
  EXPECT_EQ(Size(milliseconds(200)), 1);
  now_ += milliseconds(1);
  EXPECT_EQ(Size(milliseconds(200)), 2);
}

TEST_F(UsageCacheTest, NoAnswerIsOlderThanTheLimit) {
  EXPECT_EQ(Size(milliseconds(60'000)), 1);
  now_ += milliseconds(10'000);
  EXPECT_EQ(Size(milliseconds(1)), 2);
}

TEST_F(UsageCacheTest, QuickWalksAreAlwaysMade) {
  EXPECT_EQ(Size(milliseconds(9)), 1);
  EXPECT_EQ(Size(milliseconds(9)), 2);
}

TEST_F(UsageCacheTest, AFreshAnswerIsNeitherTakenFromWhatIsKeptNorKept) {
  EXPECT_EQ(Size(milliseconds(200)), 1);
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage fresh, cache_.Fresh(call_, kId, Walk(milliseconds(200))));
  EXPECT_EQ(fresh.size, 2);
  EXPECT_EQ(Size(milliseconds(200)), 3);
}

TEST_F(UsageCacheTest, WhatIsForgottenIsWalkedAgain) {
  EXPECT_EQ(Size(milliseconds(200)), 1);
  cache_.Forget(kId);
  EXPECT_EQ(Size(milliseconds(200)), 2);
}

TEST_F(UsageCacheTest, AFailureIsNotKept) {
  EXPECT_THAT(cache_.Get(call_, kId,
                         [this]() -> StatusOr<Usage> {
                           now_ += milliseconds(200);
                           return MakeStatus(StatusCode::kNotFound, "gone");
                         }),
              StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(Size(milliseconds(200)), 1);
}

TEST(UsageCacheThreadsTest, CallersJoinOneWalk) {
  UsageCache cache({.times = 1'000'000'000, .least = milliseconds(0)});
  std::promise<void> begun;
  std::promise<void> go_on;
  std::atomic<int> walks{0};
  const auto walk = [&]() -> StatusOr<Usage> {
    if (walks++ == 0) {
      begun.set_value();
      go_on.get_future().wait();
    }
    return Usage{.size = 5};
  };
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  const auto ask = [&] {
    CallContext call;
    const StatusOr<Usage> usage = cache.Get(call, kId, walk);
    right += usage.ok() && usage->size == 5 ? 1 : 0;
  };
  threads.emplace_back(ask);
  begun.get_future().wait();
  CallContext gone;
  gone.Cancel();
  EXPECT_THAT(cache.Get(gone, kId, walk), StatusIs(StatusCode::kCancelled));
  for (int i = 0; i < 7; ++i) {
    threads.emplace_back(ask);
  }
  go_on.set_value();
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(right, 8);
  EXPECT_EQ(walks, 1);
}

TEST(UsageCacheThreadsTest, AWalkWhoseCallerHasGoneIsMadeAgainByWhoWaits) {
  UsageCache cache({});
  std::promise<void> begun;
  std::promise<void> go_on;
  std::thread first([&] {
    CallContext call;
    EXPECT_THAT(cache.Get(call, kId,
                          [&]() -> StatusOr<Usage> {
                            begun.set_value();
                            go_on.get_future().wait();
                            return MakeStatus(StatusCode::kCancelled, "gone");
                          }),
                StatusIs(StatusCode::kCancelled));
  });
  begun.get_future().wait();
  std::thread second([&] {
    CallContext call;
    EXPECT_THAT(cache.Get(call, kId, [] { return Usage{.size = 9}; }), IsOk());
  });
  go_on.set_value();
  first.join();
  second.join();
}

}  // namespace
}  // namespace strata::testing
