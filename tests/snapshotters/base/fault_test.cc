// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/fault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using ::strata::testing::IsOk;
using ::strata::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

Status PassTwo(int* passed) {
  STRATA_FAULT_POINT("first");
  ++*passed;
  STRATA_FAULT_POINT("second");
  ++*passed;
  return OkStatus();
}

// Points and environment are the process's: each test leaves them as it found them.
class FaultTest : public ::testing::Test {
 protected:
  void TearDown() override {
    FaultPoints::Arm({});
    (void)::unsetenv("STRATA_FAULT");        // cannot fail for a good name
    (void)::unsetenv("STRATA_FAULT_TRACE");  // cannot fail for a good name
  }

  static Status ArmWith(const std::string& spec) {
    (void)::setenv("STRATA_FAULT", spec.c_str(), /*replace=*/1);  // fails only without memory
    return FaultPoints::ArmFromEnvironment();
  }

  int passed_ = 0;
};

TEST_F(FaultTest, UnarmedPointIsOk) {
  EXPECT_THAT(PassTwo(&passed_), IsOk());
  EXPECT_EQ(passed_, 2);
}

TEST_F(FaultTest, HandlerSeesEachPoint) {
  std::vector<std::string> seen;
  FaultPoints::Arm([&seen](std::string_view point) {
    seen.emplace_back(point);
    return OkStatus();
  });
  EXPECT_THAT(PassTwo(&passed_), IsOk());
  EXPECT_THAT(seen, ElementsAre("first", "second"));
}

TEST_F(FaultTest, ErrorOfTheHandlerLeavesTheFunction) {
  FaultPoints::Arm([](std::string_view point) {
    return point == "second" ? ErrnoStatus(EIO, "x") : OkStatus();
  });
  EXPECT_THAT(StatusErrno(PassTwo(&passed_)), Optional(EIO));
  EXPECT_EQ(passed_, 1);
}

TEST_F(FaultTest, EmptyHandlerDisarms) {
  FaultPoints::Arm([](std::string_view) { return ErrnoStatus(EIO, "x"); });
  FaultPoints::Arm({});
  EXPECT_THAT(PassTwo(&passed_), IsOk());
}

TEST_F(FaultTest, NothingInTheEnvironmentArmsNothing) {
  EXPECT_THAT(FaultPoints::ArmFromEnvironment(), IsOk());
  EXPECT_THAT(PassTwo(&passed_), IsOk());
}

TEST_F(FaultTest, ErrnoFailsTheNamedPointOnce) {
  ASSERT_THAT(ArmWith("second:2:28"), IsOk());
  EXPECT_THAT(PassTwo(&passed_), IsOk());
  const Status status = PassTwo(&passed_);
  EXPECT_THAT(status, StatusIs(StatusCode::kResourceExhausted, HasSubstr("'second'")));
  EXPECT_THAT(StatusErrno(status), Optional(ENOSPC));
  EXPECT_THAT(PassTwo(&passed_), IsOk());
  EXPECT_EQ(passed_, 5);
}

TEST_F(FaultTest, StarCountsAllPoints) {
  ASSERT_THAT(ArmWith("*:3:5"), IsOk());
  EXPECT_THAT(PassTwo(&passed_), IsOk());
  EXPECT_THAT(PassTwo(&passed_), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("'first'")));
}

TEST_F(FaultTest, OtherPointsAreNotTouched) {
  ASSERT_THAT(ArmWith("third:1:5"), IsOk());
  EXPECT_THAT(PassTwo(&passed_), IsOk());
}

TEST_F(FaultTest, WithoutErrnoTheProcessIsKilled) {
  ASSERT_THAT(ArmWith("second:1"), IsOk());
  EXPECT_EXIT((void)PassTwo(&passed_), ::testing::KilledBySignal(SIGKILL), "");
}

TEST_F(FaultTest, TraceNamesEachPoint) {
  const testing::TempDir dir;
  (void)::setenv("STRATA_FAULT_TRACE", dir.Join("trace").c_str(), /*replace=*/1);
  ASSERT_THAT(FaultPoints::ArmFromEnvironment(), IsOk());
  EXPECT_THAT(PassTwo(&passed_), IsOk());
  EXPECT_THAT(PassTwo(&passed_), IsOk());
  std::ifstream trace(dir.Join("trace"));
  const std::string content(std::istreambuf_iterator<char>(trace), {});
  EXPECT_EQ(content, "first\nsecond\nfirst\nsecond\n");
}

TEST_F(FaultTest, TraceThatCannotBeOpenedIsAnError) {
  const testing::TempDir dir;
  (void)::setenv("STRATA_FAULT_TRACE", dir.Join("no/trace").c_str(), /*replace=*/1);
  EXPECT_THAT(FaultPoints::ArmFromEnvironment(), StatusIs(StatusCode::kNotFound));
}

struct SpecCase {
  const char* name;
  const char* spec;
};

class FaultSpecTest : public FaultTest, public ::testing::WithParamInterface<SpecCase> {};

TEST_P(FaultSpecTest, IsRefused) {
  EXPECT_THAT(ArmWith(GetParam().spec),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("expected NAME:N or NAME:N:ERRNO")));
  EXPECT_THAT(PassTwo(&passed_), IsOk());
}

INSTANTIATE_TEST_SUITE_P(
    Specs, FaultSpecTest,
    ::testing::Values(SpecCase{"Empty", ""}, SpecCase{"NoCount", "first"}, SpecCase{"NoName", ":1"},
                      SpecCase{"CountIsNoNumber", "first:x"}, SpecCase{"CountIsZero", "first:0"},
                      SpecCase{"CountIsNegative", "first:-1"},
                      SpecCase{"ErrnoIsNoNumber", "first:1:EIO"},
                      SpecCase{"ErrnoIsZero", "first:1:0"}, SpecCase{"TooMany", "first:1:5:6"}),
    [](const ::testing::TestParamInfo<SpecCase>& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace strata
