// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::strata::testing::IsOk;
using ::strata::testing::StatusIs;
using ::testing::Eq;
using ::testing::Optional;

struct ErrnoCase {
  const char* name;
  int error;
  StatusCode code;
};

class ErrnoStatusTest : public ::testing::TestWithParam<ErrnoCase> {};

TEST_P(ErrnoStatusTest, SaysWhatTheCallerCanDo) {
  EXPECT_THAT(ErrnoStatus(GetParam().error, "open 'p'"), StatusIs(GetParam().code));
}

TEST_P(ErrnoStatusTest, GivesTheNumberBack) {
  EXPECT_THAT(StatusErrno(ErrnoStatus(GetParam().error, "open 'p'")), Optional(GetParam().error));
}

INSTANTIATE_TEST_SUITE_P(
    Errnos, ErrnoStatusTest,
    ::testing::Values(ErrnoCase{"ENOENT", ENOENT, StatusCode::kNotFound},
                      ErrnoCase{"EEXIST", EEXIST, StatusCode::kAlreadyExists},
                      ErrnoCase{"EINVAL", EINVAL, StatusCode::kInvalidArgument},
                      ErrnoCase{"ENAMETOOLONG", ENAMETOOLONG, StatusCode::kInvalidArgument},
                      ErrnoCase{"ENOSPC", ENOSPC, StatusCode::kResourceExhausted},
                      ErrnoCase{"EDQUOT", EDQUOT, StatusCode::kResourceExhausted},
                      ErrnoCase{"EMFILE", EMFILE, StatusCode::kResourceExhausted},
                      ErrnoCase{"ENFILE", ENFILE, StatusCode::kResourceExhausted},
                      ErrnoCase{"ENOMEM", ENOMEM, StatusCode::kResourceExhausted},
                      ErrnoCase{"EAGAIN", EAGAIN, StatusCode::kUnavailable},
                      ErrnoCase{"ECONNREFUSED", ECONNREFUSED, StatusCode::kUnavailable},
                      ErrnoCase{"ECONNRESET", ECONNRESET, StatusCode::kUnavailable},
                      ErrnoCase{"ETIMEDOUT", ETIMEDOUT, StatusCode::kDeadlineExceeded},
                      ErrnoCase{"ECANCELED", ECANCELED, StatusCode::kCancelled},
                      ErrnoCase{"ENOSYS", ENOSYS, StatusCode::kUnimplemented},
                      ErrnoCase{"EOPNOTSUPP", EOPNOTSUPP, StatusCode::kUnimplemented},
                      ErrnoCase{"EACCES", EACCES, StatusCode::kPermissionDenied},
                      ErrnoCase{"EPERM", EPERM, StatusCode::kPermissionDenied},
                      ErrnoCase{"EIO", EIO, StatusCode::kFailedPrecondition},
                      ErrnoCase{"EROFS", EROFS, StatusCode::kFailedPrecondition},
                      ErrnoCase{"ENOTDIR", ENOTDIR, StatusCode::kFailedPrecondition},
                      ErrnoCase{"Unknown", 4095, StatusCode::kFailedPrecondition}),
    [](const ::testing::TestParamInfo<ErrnoCase>& test) { return std::string(test.param.name); });

TEST(StatusTest, ErrnoMessageNamesActionAndCause) {
  EXPECT_EQ(StatusMessage(ErrnoStatus(ENOENT, "open 'p'")), "open 'p': No such file or directory");
}

TEST(StatusTest, MakeStatusTakesCodeAndMessage) {
  EXPECT_THAT(MakeStatus(StatusCode::kDataLoss, "digest of 'x'"),
              StatusIs(StatusCode::kDataLoss, Eq("digest of 'x'")));
}

TEST(StatusTest, NoErrnoWithoutOne) {
  EXPECT_EQ(StatusErrno(OkStatus()), std::nullopt);
  EXPECT_EQ(StatusErrno(MakeStatus(StatusCode::kNotFound, "x")), std::nullopt);
}

TEST(StatusTest, AnnotateKeepsCodeAndErrno) {
  const Status status = Annotate(ErrnoStatus(EBUSY, "rename 'a'"), "commit 'k'");
  EXPECT_THAT(status, StatusIs(StatusCode::kFailedPrecondition,
                               Eq("commit 'k': rename 'a': Device or resource busy")));
  EXPECT_THAT(StatusErrno(status), Optional(EBUSY));
}

TEST(StatusTest, AnnotateKeepsOk) {
  EXPECT_THAT(Annotate(OkStatus(), "commit 'k'"), IsOk());
}

TEST(StatusTest, ToStatusTakesBothKinds) {
  EXPECT_THAT(ToStatus(StatusOr<int>(1)), IsOk());
  EXPECT_THAT(ToStatus(StatusOr<int>(MakeStatus(StatusCode::kNotFound, "x"))),
              StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(ToStatus(MakeStatus(StatusCode::kNotFound, "x")), StatusIs(StatusCode::kNotFound));
}

Status ReturnIfError(const Status& status, int* evaluated) {
  STRATA_RETURN_IF_ERROR((++*evaluated, status));
  return MakeStatus(StatusCode::kAborted, "went on");
}

TEST(StatusMacroTest, ReturnIfErrorReturnsTheError) {
  int evaluated = 0;
  const Status error = ErrnoStatus(EIO, "read 'x'");
  EXPECT_EQ(ReturnIfError(error, &evaluated), error);
  EXPECT_EQ(evaluated, 1);
}

TEST(StatusMacroTest, ReturnIfErrorGoesOnWithOk) {
  int evaluated = 0;
  EXPECT_THAT(ReturnIfError(OkStatus(), &evaluated), StatusIs(StatusCode::kAborted));
  EXPECT_EQ(evaluated, 1);
}

StatusOr<int> AddOne(StatusOr<std::unique_ptr<int>> number) {
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<int> value, std::move(number));
  return *value + 1;
}

TEST(StatusMacroTest, AssignOrReturnMovesTheValue) {
  EXPECT_EQ(AddOne(std::make_unique<int>(1)).value(), 2);
}

TEST(StatusMacroTest, AssignOrReturnReturnsTheError) {
  EXPECT_THAT(AddOne(MakeStatus(StatusCode::kNotFound, "x")), StatusIs(StatusCode::kNotFound));
}

}  // namespace
}  // namespace strata
