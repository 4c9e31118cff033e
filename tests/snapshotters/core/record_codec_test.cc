// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/record_codec.h"

#include <limits>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::IsOk;
using testing::StatusIs;

SnapshotRecord Sample() {
  SnapshotRecord record;
  record.id = 300;
  record.info = {.name = "k8s.io/12/sha256:abc",
                 .parent = "k8s.io/11/sha256:def",
                 .kind = Kind::kCommitted,
                 .created = 1'700'000'000'123'456'789,
                 .updated = -1,
                 .labels = {{"a", "1"}, {"containerd.io/snapshot.ref", "sha256:x"}}};
  record.chain = {299, 7, 1};
  record.usage = {.size = 1 << 20, .inodes = 5};
  return record;
}

TEST(RecordCodecTest, DecodesWhatItEncoded) {
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotRecord decoded, DecodeRecord(EncodeRecord(Sample())));
  EXPECT_EQ(decoded, Sample());
}

TEST(RecordCodecTest, KeepsTheLimitsOfEveryNumber) {
  SnapshotRecord record = Sample();
  record.id = std::numeric_limits<SnapshotId>::max();
  record.chain = {record.id};
  record.info.created = std::numeric_limits<TimeNs>::min();
  record.info.updated = std::numeric_limits<TimeNs>::max();
  record.usage.size = std::numeric_limits<int64_t>::max();
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotRecord decoded, DecodeRecord(EncodeRecord(record)));
  EXPECT_EQ(decoded, record);
}

TEST(RecordCodecTest, NoticesEveryFlippedBit) {
  const std::string good = EncodeRecord(Sample());
  for (size_t i = 0; i < good.size() * 8; ++i) {
    std::string bad = good;
    bad[i / 8] = static_cast<char>(bad[i / 8] ^ (1 << (i % 8)));
    EXPECT_THAT(DecodeRecord(bad), StatusIs(StatusCode::kDataLoss)) << "bit " << i;
  }
}

TEST(RecordCodecTest, NoticesEveryCut) {
  const std::string good = EncodeRecord(Sample());
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_THAT(DecodeRecord(good.substr(0, length)), StatusIs(StatusCode::kDataLoss)) << length;
  }
}

}  // namespace
}  // namespace strata
