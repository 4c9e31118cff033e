// SPDX-License-Identifier: Apache-2.0
//
// Why layers are not lazy: reasons of statuses, and what is remembered of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "snapshotters/lazy/fallback_log.h"
#include "snapshotters/lazy/fallback_reason.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using std::chrono::minutes;
using testing::IsOk;
using testing::StatusIs;

struct ReasonCase {
  StatusCode code;
  FallbackReason reason;
};
class ReasonOfTest : public ::testing::TestWithParam<ReasonCase> {};

TEST_P(ReasonOfTest, IsByCode) {
  EXPECT_EQ(ReasonOf(MakeStatus(GetParam().code, "x")), GetParam().reason);
}
INSTANTIATE_TEST_SUITE_P(
    Codes, ReasonOfTest,
    ::testing::Values(ReasonCase{StatusCode::kFailedPrecondition, FallbackReason::kNotLazy},
                      ReasonCase{StatusCode::kDataLoss, FallbackReason::kBadLayer},
                      ReasonCase{StatusCode::kInvalidArgument, FallbackReason::kBadLayer},
                      ReasonCase{StatusCode::kUnavailable, FallbackReason::kRegistry},
                      ReasonCase{StatusCode::kNotFound, FallbackReason::kRegistry},
                      ReasonCase{StatusCode::kUnimplemented, FallbackReason::kRegistry},
                      ReasonCase{StatusCode::kUnauthenticated, FallbackReason::kCredentials},
                      ReasonCase{StatusCode::kPermissionDenied, FallbackReason::kCredentials},
                      ReasonCase{StatusCode::kDeadlineExceeded, FallbackReason::kTimeout},
                      ReasonCase{StatusCode::kResourceExhausted, FallbackReason::kLimits}));

TEST(ReasonOfTest, OkHasNone) {
  EXPECT_EQ(ReasonOf(OkStatus()), FallbackReason::kNone);
  EXPECT_THAT(WithReason(OkStatus(), FallbackReason::kDisk), IsOk());
}

TEST(ReasonOfTest, AFullDiskIsNoLimit) {
  EXPECT_EQ(ReasonOf(ErrnoStatus(ENOSPC, "write")), FallbackReason::kDisk);
  EXPECT_EQ(ReasonOf(ErrnoStatus(EDQUOT, "write")), FallbackReason::kDisk);
}

TEST(ReasonOfTest, WhatIsSaidGoesBeforeTheCodeAndStaysWithContext) {
  for (const FallbackReason reason :
       {FallbackReason::kNotLazy, FallbackReason::kNoPin, FallbackReason::kBadLayer,
        FallbackReason::kRegistry, FallbackReason::kCredentials, FallbackReason::kTimeout,
        FallbackReason::kDisk, FallbackReason::kLimits, FallbackReason::kPresenter}) {
    const Status status = WithReason(MakeStatus(StatusCode::kUnavailable, "x"), reason);
    EXPECT_EQ(ReasonOf(Annotate(status, "layer")), reason) << FallbackReasonName(reason);
  }
}

TEST(FallbackLogTest, HasOneRowForEachLayerOfAnImage) {
  FallbackLog log;
  log.Add("a", "d", MakeStatus(StatusCode::kUnavailable, "first"));
  log.Add("a", "e", MakeStatus(StatusCode::kUnavailable, "other"));
  log.Add("a", "d", MakeStatus(StatusCode::kDataLoss, "second"));
  ASSERT_EQ(log.rows().size(), 2U);
  EXPECT_EQ(log.rows()[0].digest, "e");
  EXPECT_EQ(log.rows()[1].detail, "second");
  EXPECT_EQ(log.rows()[1].reason, FallbackReason::kBadLayer);
  log.Forget("a", "e");
  EXPECT_EQ(log.rows().size(), 1U);
}

TEST(FallbackLogTest, KeepsTheLatest) {
  FallbackLog log;
  for (int i = 0; i < 300; ++i) {
    log.Add("a", std::to_string(i), MakeStatus(StatusCode::kUnavailable, "x"));
  }
  EXPECT_EQ(log.rows().size(), 256U);
  EXPECT_EQ(log.rows().front().digest, "44");
}

TEST(FallbackLogTest, RemembersForSomeMinutesWhatWillNotChange) {
  FallbackLog log;
  const FallbackLog::Time now;
  log.Remember("ordinary", MakeStatus(StatusCode::kFailedPrecondition, "not lazy"), now);
  log.Remember("down", MakeStatus(StatusCode::kUnavailable, "down"), now);
  EXPECT_THAT(log.Recall("ordinary", now + minutes(4)), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(log.Recall("ordinary", now + minutes(5)), IsOk());
  EXPECT_THAT(log.Recall("down", now), IsOk());
}

TEST(FallbackLogTest, RemembersABoundedNumber) {
  FallbackLog log;
  const FallbackLog::Time now;
  for (int i = 0; i < 5000; ++i) {
    log.Remember(std::to_string(i), MakeStatus(StatusCode::kFailedPrecondition, "x"), now);
  }
  EXPECT_THAT(log.Recall("0", now), IsOk());
  EXPECT_THAT(log.Recall("4999", now), StatusIs(StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace strata
