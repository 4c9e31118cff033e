// SPDX-License-Identifier: Apache-2.0
#include "protos/codec/snapshot_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <ostream>
#include <string>

namespace strata::codec {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr TimeNs kEarliest = std::numeric_limits<TimeNs>::min();
constexpr TimeNs kLatest = std::numeric_limits<TimeNs>::max();

SnapshotInfo SampleInfo() {
  return {
      .name = "k8s.io/7/a b:c=d\x01",
      .parent = "sha256:0123",
      .kind = Kind::kView,
      .created = 1'700'000'000'123'456'789,
      .updated = 1'700'000'001'000'000'001,
      .labels = {{"containerd.io/snapshot/x", "1"}, {"empty", ""}, {"dots.and/slash", "=;,"}},
  };
}

wire::Info InfoCreatedAt(int64_t seconds, int32_t nanoseconds) {
  wire::Info info;
  info.mutable_created_at()->set_seconds(seconds);
  info.mutable_created_at()->set_nanos(nanoseconds);
  return info;
}

TEST(SnapshotCodecTest, InfoSurvivesTheRoundTripThroughBytes) {
  wire::Info message;
  ToWire(SampleInfo(), &message);
  wire::Info received;
  ASSERT_TRUE(received.ParseFromString(message.SerializeAsString()));
  EXPECT_EQ(FromWire(received), SampleInfo());
}

TEST(SnapshotCodecTest, WritingOverAnOldMessageLeavesNothingOfIt) {
  wire::Info message;
  ToWire(SampleInfo(), &message);
  ToWire(SnapshotInfo{.name = "other", .labels = {{"only", "this"}}}, &message);
  EXPECT_EQ(FromWire(message), (SnapshotInfo{.name = "other", .labels = {{"only", "this"}}}));
}

TEST(SnapshotCodecTest, AnEmptyMessageReadsAsACommittedSnapshotWithoutAnything) {
  EXPECT_EQ(FromWire(wire::Info()), (SnapshotInfo{.kind = Kind::kCommitted}));
}

TEST(SnapshotCodecTest, MountSurvivesTheRoundTripWithItsOptionsInOrder) {
  const Mount mount{.type = "overlay",
                    .source = "overlay",
                    .target = "etc/ssl",
                    .options = {"workdir=/w", "upperdir=/u", "lowerdir=/b:/a", "index=off"}};
  containerd::types::Mount message;
  ToWire(Mount{.type = "bind", .source = "/old", .options = {"ro"}}, &message);
  ToWire(mount, &message);
  EXPECT_EQ(FromWire(message), mount);
  EXPECT_THAT(message.options(),
              ElementsAre("workdir=/w", "upperdir=/u", "lowerdir=/b:/a", "index=off"));
}

TEST(SnapshotCodecTest, LabelsReplaceWhatTheMapHeld) {
  google::protobuf::Map<std::string, std::string> map;
  map["old"] = "value";
  ToWire(Labels{{"new", "value"}}, &map);
  EXPECT_EQ(FromWire(map), (Labels{{"new", "value"}}));
  ToWire(Labels{}, &map);
  EXPECT_THAT(FromWire(map), IsEmpty());
}

struct KindCase {
  std::string name;
  wire::Kind wire;
  Kind kind;
};

class KindCodecTest : public ::testing::TestWithParam<KindCase> {};

TEST_P(KindCodecTest, BothWays) {
  wire::Info message;
  message.set_kind(GetParam().wire);
  const SnapshotInfo info = FromWire(message);
  EXPECT_EQ(info.kind, GetParam().kind);
  ToWire(info, &message);
  EXPECT_EQ(static_cast<int>(message.kind()), static_cast<int>(GetParam().kind));
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, KindCodecTest,
    ::testing::Values(KindCase{"View", wire::VIEW, Kind::kView},
                      KindCase{"Active", wire::ACTIVE, Kind::kActive},
                      KindCase{"Committed", wire::COMMITTED, Kind::kCommitted},
                      KindCase{"Unknown", wire::UNKNOWN, Kind::kCommitted},
                      KindCase{"OfAnotherVersion", static_cast<wire::Kind>(77), Kind::kCommitted},
                      KindCase{"Negative", static_cast<wire::Kind>(-1), Kind::kCommitted}),
    [](const auto& test) { return test.param.name; });

struct TimeCase {
  std::string name;
  int64_t seconds;
  int32_t nanoseconds;
  TimeNs time;
};

std::ostream& operator<<(std::ostream& out, const TimeCase& time) {
  return out << time.seconds << " s " << time.nanoseconds << " ns";
}

// Times that a TimeNs holds: one form on each side.
class ExactTimeTest : public ::testing::TestWithParam<TimeCase> {};

TEST_P(ExactTimeTest, BothWays) {
  wire::Info message = InfoCreatedAt(GetParam().seconds, GetParam().nanoseconds);
  const SnapshotInfo info = FromWire(message);
  EXPECT_EQ(info.created, GetParam().time);
  ToWire(SnapshotInfo{.updated = GetParam().time}, &message);
  EXPECT_EQ(message.updated_at().seconds(), GetParam().seconds);
  EXPECT_EQ(message.updated_at().nanos(), GetParam().nanoseconds);
}

INSTANTIATE_TEST_SUITE_P(
    Times, ExactTimeTest,
    ::testing::Values(TimeCase{"Epoch", 0, 0, 0}, TimeCase{"OneNanosecond", 0, 1, 1},
                      TimeCase{"LastNanosecondOfASecond", 1, 999'999'999, 1'999'999'999},
                      TimeCase{"Now", 1'700'000'000, 123'456'789, 1'700'000'000'123'456'789},
                      TimeCase{"JustBeforeTheEpoch", -1, 999'999'999, -1},
                      TimeCase{"OneSecondBefore", -1, 0, -1'000'000'000},
                      TimeCase{"MoreThanOneSecondBefore", -2, 999'999'999, -1'000'000'001},
                      TimeCase{"Latest", 9'223'372'036, 854'775'807, kLatest},
                      TimeCase{"Earliest", -9'223'372'037, 145'224'192, kEarliest}),
    [](const auto& test) { return test.param.name; });

// Times that only a Timestamp holds.
class CutTimeTest : public ::testing::TestWithParam<TimeCase> {};

TEST_P(CutTimeTest, ReadsAsTheNearestThatFits) {
  const TimeCase& time = GetParam();
  EXPECT_EQ(FromWire(InfoCreatedAt(time.seconds, time.nanoseconds)).created, time.time);
}

INSTANTIATE_TEST_SUITE_P(
    Times, CutTimeTest,
    ::testing::Values(TimeCase{"ZeroTimeOfGo", -62'135'596'800, 0, kEarliest},
                      TimeCase{"EndOfYear9999", 253'402'300'799, 999'999'999, kLatest},
                      TimeCase{"OnePastTheLatest", 9'223'372'036, 854'775'808, kLatest},
                      TimeCase{"OneBeforeTheEarliest", -9'223'372'037, 145'224'191, kEarliest},
                      TimeCase{"MostSeconds", std::numeric_limits<int64_t>::max(),
                               std::numeric_limits<int32_t>::max(), kLatest},
                      TimeCase{"FewestSeconds", std::numeric_limits<int64_t>::min(),
                               std::numeric_limits<int32_t>::min(), kEarliest},
                      // Not allowed by the message's definition, but a peer can send them.
                      TimeCase{"NegativeNanoseconds", 5, -1, 4'999'999'999},
                      TimeCase{"NanosecondsOfMoreThanASecond", 5, 1'500'000'000, 6'500'000'000}),
    [](const auto& test) { return test.param.name; });

TEST(AppendInfoFieldTest, ReadsBackAsTheMessageClassWouldWriteIt) {
  SnapshotInfo full = {.name = std::string(300, 'n'),
                       .parent = "p",
                       .kind = Kind::kCommitted,
                       .created = 1'700'000'000'123'456'789,
                       .updated = -1,
                       .labels = {{"a", std::string(200, 'v')}, {"b", ""}}};
  for (const SnapshotInfo& info : {full, SnapshotInfo{.name = "only-a-name"}}) {
    std::string bytes;
    AppendInfoField(wire::ListSnapshotsResponse::kInfoFieldNumber, info, &bytes);
    AppendInfoField(wire::ListSnapshotsResponse::kInfoFieldNumber, info, &bytes);
    wire::ListSnapshotsResponse message;
    ASSERT_TRUE(message.ParseFromString(bytes));
    ASSERT_EQ(message.info_size(), 2);
    EXPECT_EQ(FromWire(message.info(1)), info);
    EXPECT_EQ(message.ByteSizeLong(), bytes.size());
  }
}

}  // namespace
}  // namespace strata::codec
