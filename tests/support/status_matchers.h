// SPDX-License-Identifier: Apache-2.0
//
// gtest matchers for Status and StatusOr. For tests only.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "snapshotters/base/status.h"

namespace strata::testing {

MATCHER(IsOk, "is OK") {
  const Status status = ToStatus(arg);
  *result_listener << status.ToString();
  return status.ok();
}

MATCHER_P(StatusIs, code, "has code " + absl::StatusCodeToString(code)) {
  const Status status = ToStatus(arg);
  *result_listener << status.ToString();
  return status.code() == code;
}

MATCHER_P2(StatusIs, code, message_matcher, "has that code and message") {
  const Status status = ToStatus(arg);
  *result_listener << status.ToString();
  return status.code() == code &&
         ::testing::ExplainMatchResult(message_matcher, std::string(StatusMessage(status)),
                                       result_listener);
}

}  // namespace strata::testing

#define STRATA_ASSERT_OK_AND_ASSIGN(lhs, expr) \
  STRATA_ASSERT_OK_AND_ASSIGN_INNER(STRATA_CONCAT(strata_result_, __LINE__), lhs, expr)
#define STRATA_ASSERT_OK_AND_ASSIGN_INNER(result, lhs, expr) \
  auto result = (expr);                                      \
  ASSERT_THAT(result, ::strata::testing::IsOk());            \
  lhs = *std::move(result)
