// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/retry.h"

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kMuchTime{1'000'000};
constexpr RetryOptions kOptions{
    .attempts = 9, .first_delay = milliseconds(100), .ceiling = milliseconds(1000)};

TEST(RetryTest, OnlyWhatMayPassIsTriedAgain) {
  for (const int code : {0, 408, 429, 500, 502, 503, 504}) {
    EXPECT_TRUE(IsRetryable({.http_status = code})) << code;
  }
  for (const int code : {200, 400, 401, 403, 404, 416, 501}) {
    EXPECT_FALSE(IsRetryable({.http_status = code})) << code;
  }
}

TEST(RetryTest, BoundDoublesUpToTheCeiling) {
  EXPECT_EQ(RetryDelay(kOptions, 1, {}, kMuchTime, 1.0), milliseconds(100));
  EXPECT_EQ(RetryDelay(kOptions, 3, {}, kMuchTime, 1.0), milliseconds(400));
  EXPECT_EQ(RetryDelay(kOptions, 8, {}, kMuchTime, 1.0), milliseconds(1000));
}

TEST(RetryTest, JitterIsFull) {
  EXPECT_EQ(RetryDelay(kOptions, 3, {}, kMuchTime, 0.0), milliseconds(0));
  EXPECT_EQ(RetryDelay(kOptions, 3, {}, kMuchTime, 0.5), milliseconds(200));
}

TEST(RetryTest, HonoursRetryAfterAboveCeiling) {
  EXPECT_EQ(
      RetryDelay(kOptions, 1, {.http_status = 429, .retry_after = seconds(20)}, kMuchTime, 0.5),
      seconds(20));
}

TEST(RetryTest, EndsWhenTheWaitWouldOutlastTheDeadline) {
  EXPECT_EQ(
      RetryDelay(kOptions, 1, {.http_status = 429, .retry_after = seconds(20)}, seconds(20), 0.5),
      std::nullopt);
}

TEST(RetryTest, EndsAfterTheLastAttempt) {
  EXPECT_NE(RetryDelay(kOptions, 8, {}, kMuchTime, 0.5), std::nullopt);
  EXPECT_EQ(RetryDelay(kOptions, 9, {}, kMuchTime, 0.5), std::nullopt);
}

TEST(RetryTest, RetryAfterIsSecondsOrADate) {
  constexpr TimeNs kNow = TimeNs{784111777} * 1'000'000'000;  // Sun, 06 Nov 1994 08:49:37 GMT
  EXPECT_EQ(ParseRetryAfter("120", kNow), seconds(120));
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:50:07 GMT", kNow), seconds(30));
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:00:00 GMT", kNow), seconds(0));
  EXPECT_EQ(ParseRetryAfter("soon", kNow), std::nullopt);
  EXPECT_EQ(ParseRetryAfter("-1", kNow), std::nullopt);
}

}  // namespace
}  // namespace strata
