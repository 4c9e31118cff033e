// SPDX-License-Identifier: Apache-2.0
#include "protos/codec/status_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "snapshotters/core/snapshot.h"

namespace strata::codec {
namespace {

using ::testing::EndsWith;
using ::testing::SizeIs;

std::string MessageSent(const std::string& message, StatusCode code = StatusCode::kNotFound) {
  return ToGrpc(MakeStatus(code, message)).error_message();
}

struct CodeCase {
  std::string name;
  StatusCode ours;
  grpc::StatusCode wire;
  int number;  // as in the gRPC specification
};

class StatusCodeTest : public ::testing::TestWithParam<CodeCase> {};

TEST_P(StatusCodeTest, TravelsAsItself) {
  const grpc::Status sent = ToGrpc(MakeStatus(GetParam().ours, "text"));
  EXPECT_EQ(sent.error_code(), GetParam().wire);
  EXPECT_EQ(static_cast<int>(sent.error_code()), GetParam().number);
}

TEST_P(StatusCodeTest, ComesBackAsItself) {
  const Status status = FromGrpc(grpc::Status(GetParam().wire, "text"));
  EXPECT_EQ(status.code(), GetParam().ours);
  EXPECT_EQ(StatusMessage(status), status.ok() ? "" : "text");
}

INSTANTIATE_TEST_SUITE_P(
    Codes, StatusCodeTest,
    ::testing::Values(
        CodeCase{"Ok", StatusCode::kOk, grpc::OK, 0},
        CodeCase{"Cancelled", StatusCode::kCancelled, grpc::CANCELLED, 1},
        CodeCase{"Unknown", StatusCode::kUnknown, grpc::UNKNOWN, 2},
        CodeCase{"InvalidArgument", StatusCode::kInvalidArgument, grpc::INVALID_ARGUMENT, 3},
        CodeCase{"DeadlineExceeded", StatusCode::kDeadlineExceeded, grpc::DEADLINE_EXCEEDED, 4},
        CodeCase{"NotFound", StatusCode::kNotFound, grpc::NOT_FOUND, 5},
        CodeCase{"AlreadyExists", StatusCode::kAlreadyExists, grpc::ALREADY_EXISTS, 6},
        CodeCase{"PermissionDenied", StatusCode::kPermissionDenied, grpc::PERMISSION_DENIED, 7},
        CodeCase{"ResourceExhausted", StatusCode::kResourceExhausted, grpc::RESOURCE_EXHAUSTED, 8},
        CodeCase{"FailedPrecondition", StatusCode::kFailedPrecondition, grpc::FAILED_PRECONDITION,
                 9},
        CodeCase{"Aborted", StatusCode::kAborted, grpc::ABORTED, 10},
        CodeCase{"OutOfRange", StatusCode::kOutOfRange, grpc::OUT_OF_RANGE, 11},
        CodeCase{"Unimplemented", StatusCode::kUnimplemented, grpc::UNIMPLEMENTED, 12},
        CodeCase{"Internal", StatusCode::kInternal, grpc::INTERNAL, 13},
        CodeCase{"Unavailable", StatusCode::kUnavailable, grpc::UNAVAILABLE, 14},
        CodeCase{"DataLoss", StatusCode::kDataLoss, grpc::DATA_LOSS, 15},
        CodeCase{"Unauthenticated", StatusCode::kUnauthenticated, grpc::UNAUTHENTICATED, 16}),
    [](const auto& test) { return test.param.name; });

TEST(StatusCodecTest, NumbersThatNobodyDefinedBecomeUnknown) {
  for (const int number : {-1, 17, 31}) {
    const auto wire = static_cast<grpc::StatusCode>(number);
    EXPECT_EQ(FromGrpc(grpc::Status(wire, "text")).code(), StatusCode::kUnknown) << number;
    // absl::Status gives every such number out as kUnknown.
    const auto ours = static_cast<StatusCode>(number);
    EXPECT_EQ(ToGrpc(MakeStatus(ours, "text")).error_code(), grpc::UNKNOWN) << number;
  }
}

TEST(StatusCodecTest, AnOrdinaryMessageIsNotTouched) {
  const std::string message = "remove 'k8s.io/1/größe': cannot remove snapshot with child";
  EXPECT_EQ(MessageSent(message), message);
}

TEST(StatusCodecTest, ControlCharactersBecomeBlanks) {
  EXPECT_EQ(MessageSent(std::string("a\nb\tc\x01"
                                    "d\x7f"
                                    "e\0f",
                                    11)),
            "a b c d e f");
}

TEST(StatusCodecTest, AMessageOfTheLimitStaysWhole) {
  const std::string message(kMaxMessageBytes, 'x');
  EXPECT_EQ(MessageSent(message), message);
}

TEST(StatusCodecTest, ALongerMessageIsCut) {
  EXPECT_EQ(MessageSent(std::string(100'000, 'x')), std::string(kMaxMessageBytes, 'x'));
}

TEST(StatusCodecTest, TheCutDoesNotHalveACharacter) {
  for (const std::string character : {"é", "€", "😀"}) {
    for (size_t before = 0; before < 5; ++before) {
      const std::string message =
          std::string(kMaxMessageBytes - before, 'x') + character + std::string(10, 'y');
      const std::string sent = MessageSent(message);
      EXPECT_TRUE(IsValidUtf8(sent)) << character << " " << before;
      EXPECT_LE(sent.size(), kMaxMessageBytes);
      EXPECT_GT(sent.size() + character.size(), kMaxMessageBytes);
    }
  }
}

TEST(StatusCodecTest, BytesThatAreNoTextAreCutAtTheLimit) {
  EXPECT_THAT(MessageSent(std::string(3 * kMaxMessageBytes, '\x80')), SizeIs(kMaxMessageBytes));
}

TEST(StatusCodecTest, EndingsThatNameAnotherClassGetAPeriod) {
  const StatusCode code = StatusCode::kFailedPrecondition;
  EXPECT_EQ(MessageSent("commit 'a': conflict", code), "commit 'a': conflict.");
  EXPECT_EQ(MessageSent("update 'a': not modified", code), "update 'a': not modified.");
  EXPECT_EQ(MessageSent("conflict", code), "conflict.");
  EXPECT_EQ(MessageSent("not modified", code), "not modified.");
  EXPECT_EQ(MessageSent("'a' is in conflict", code), "'a' is in conflict");
  EXPECT_EQ(MessageSent("a: conflict with b", code), "a: conflict with b");
}

TEST(StatusCodecTest, ThePeriodFitsIntoTheLimitToo) {
  const std::string ending = ": conflict";
  const std::string message = std::string(kMaxMessageBytes - ending.size(), 'x') + ending;
  const std::string sent = MessageSent(message + " that is cut away");
  EXPECT_THAT(sent, SizeIs(kMaxMessageBytes));
  EXPECT_THAT(sent, EndsWith(": conflic."));
}

}  // namespace
}  // namespace strata::codec
