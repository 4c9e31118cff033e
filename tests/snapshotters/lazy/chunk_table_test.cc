// SPDX-License-Identifier: Apache-2.0
//
// Chunk tables: what is written is found again, and what was not written is refused.
#include "snapshotters/lazy/chunk_table.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/crc32c.h"
#include "snapshotters/lazy/erofs_writer.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kNoData = ErofsLayout::kNoData;

// FORMAT.md, "chunks".
constexpr size_t kVersionAt = 8;
constexpr size_t kChecksumAt = 12;
constexpr size_t kSpansAt = 128;
constexpr size_t kSpanBytes = 32;
constexpr size_t kChunkBytes = 64;

Sha256Digest DigestOf(uint8_t seed) {
  Sha256Digest digest = {};
  digest.fill(seed);
  return digest;
}

ChunkRecord Chunk(uint64_t file, uint64_t offset, uint64_t bytes, uint32_t span, uint64_t inner) {
  return {.file_index = file,
          .file_offset = offset,
          .bytes = bytes,
          .span = span,
          .inner_offset = inner,
          .digest = DigestOf(static_cast<uint8_t>(file + 1)),
          .has_digest = true};
}

// Four files: two chunks in spans of their own, one with a hole between two chunks, one that is not
// in the image, one that shares the first span with nothing between.
ChunkMap MakeMap() {
  ChunkMap map;
  map.spans = {
      {.blob_offset = 10, .blob_bytes = 90, .decoded_bytes = 9000, .codec = SpanCodec::kGzip},
      {.blob_offset = 100, .blob_bytes = 50, .decoded_bytes = 100, .codec = SpanCodec::kZstd},
      {.blob_offset = 150, .blob_bytes = 7, .decoded_bytes = 7, .codec = SpanCodec::kNone},
      {.blob_offset = 300, .blob_bytes = 20, .decoded_bytes = 60, .codec = SpanCodec::kZstd},
  };
  map.chunks = {
      Chunk(0, 0, 4000, 0, 0),    Chunk(0, 4000, 100, 1, 0),
      Chunk(1, 0, 5000, 0, 4000), Chunk(1, 5000, 3000, kZerosSpan, 0),
      Chunk(1, 8000, 50, 3, 10),  Chunk(2, 0, 7, 2, 0),
  };
  map.regular_files = 3;
  return map;
}

const std::vector<uint64_t> kOffsets = {2 * kBlock, 4 * kBlock, kNoData};
constexpr uint64_t kImageBytes = 6 * kBlock;
constexpr ImageFacts kFacts = {
    .metadata_bytes = 2 * kBlock, .metadata_checksum = 0x12345678, .has_xattrs = true};

class ChunkTableTest : public ::testing::Test {
 protected:
  UniqueFd NewFile(const std::string& content = "") {
    auto fd = OpenFile(dir_.Join(std::to_string(files_++)), O_RDWR | O_CREAT | O_EXCL, 0600);
    EXPECT_THAT(fd, IsOk());
    EXPECT_THAT(WriteAll(fd->get(), content, "table"), IsOk());
    return *std::move(fd);
  }

  std::string Written(const ChunkMap& map = MakeMap(),
                      const std::vector<uint64_t>& offsets = kOffsets) {
    const UniqueFd fd = NewFile();
    EXPECT_THAT(ChunkTable::Write(fd.get(), map, offsets, kImageBytes, kFacts), IsOk());
    EXPECT_EQ(::lseek(fd.get(), 0, SEEK_SET), 0);
    return *ReadAll(fd.get(), "table", 1 << 20);
  }

  StatusOr<ChunkTable> Open(const std::string& content) {
    return ChunkTable::Open(NewFile(content).get());
  }

 private:
  TempDir dir_;
  int files_ = 0;
};

// As a writer with other ideas would have made it: the checksum holds.
std::string Sealed(std::string table) {
  std::memset(table.data() + kChecksumAt, 0, 4);
  const uint32_t sum = Crc32c({reinterpret_cast<const uint8_t*>(table.data()), table.size()});
  std::memcpy(table.data() + kChecksumAt, &sum, sizeof(sum));
  return table;
}

template <typename T>
std::string With(std::string table, size_t at, T value) {
  std::memcpy(table.data() + at, &value, sizeof(value));
  return Sealed(std::move(table));
}

TEST_F(ChunkTableTest, KeepsWhatItIsOf) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable table, Open(Written()));
  EXPECT_EQ(table.image_bytes(), kImageBytes);
  EXPECT_EQ(table.facts(), kFacts);
  EXPECT_EQ(table.chunks(), 5U);
  EXPECT_EQ(table.fetched_chunks(), 4U);
  EXPECT_EQ(table.data_bytes(), 12150U);
  EXPECT_EQ(table.fetched_bytes(), 9150U);
}

TEST_F(ChunkTableTest, HasChunksInTheOrderOfTheImage) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable table, Open(Written()));
  const TableChunk chunk = table.chunk(2);
  EXPECT_EQ(chunk.image_offset, 4 * kBlock);
  EXPECT_EQ(chunk.bytes, 5000U);
  EXPECT_EQ(chunk.span, 0U);
  EXPECT_EQ(chunk.inner_offset, 4000U);
  EXPECT_TRUE(chunk.has_digest);
  EXPECT_EQ(chunk.digest, DigestOf(2));
  EXPECT_EQ(table.chunk(3).image_offset, 4 * kBlock + 5000);
  EXPECT_EQ(table.chunk(3).span, kZerosSpan);
  EXPECT_FALSE(table.chunk(3).has_digest);
}

TEST_F(ChunkTableTest, LeavesOutSpansThatFillNothing) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable table, Open(Written()));
  ASSERT_EQ(table.spans(), 3U);
  const TableSpan last = table.span(2);
  EXPECT_EQ(last.blob_offset, 300U);
  EXPECT_EQ(last.blob_bytes, 20U);
  EXPECT_EQ(last.decoded_bytes, 60U);
  EXPECT_EQ(last.codec, SpanCodec::kZstd);
  EXPECT_EQ(table.chunk(4).span, 2U);
}

TEST_F(ChunkTableTest, GroupsChunksThatAreNoNeighbours) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable table, Open(Written()));
  EXPECT_THAT(table.ChunksOf(0), ElementsAre(0, 2));
  EXPECT_THAT(table.ChunksOf(1), ElementsAre(1));
  EXPECT_THAT(table.ChunksOf(2), ElementsAre(4));
}

TEST_F(ChunkTableTest, SortsFilesThatLieInAnotherOrder) {
  const std::vector<uint64_t> offsets = {4 * kBlock, 2 * kBlock, kNoData};
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable table, Open(Written(MakeMap(), offsets)));
  EXPECT_EQ(table.chunk(0).bytes, 5000U);
  EXPECT_EQ(table.chunk(3).bytes, 4000U);
  // By inner offset all the same.
  EXPECT_THAT(table.ChunksOf(0), ElementsAre(3, 0));
}

TEST_F(ChunkTableTest, FindsTheFirstChunkThatEndsBehindAnOffset) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable table, Open(Written()));
  EXPECT_EQ(table.FirstChunkAt(0), 0U);
  EXPECT_EQ(table.FirstChunkAt(2 * kBlock + 3999), 0U);
  EXPECT_EQ(table.FirstChunkAt(2 * kBlock + 4000), 1U);
  EXPECT_EQ(table.FirstChunkAt(2 * kBlock + 4100), 2U);  // between two files
  EXPECT_EQ(table.FirstChunkAt(4 * kBlock + 8049), 4U);
  EXPECT_EQ(table.FirstChunkAt(4 * kBlock + 8050), 5U);
  EXPECT_EQ(table.FirstChunkAt(~uint64_t{0}), 5U);
}

TEST_F(ChunkTableTest, FindsEachOfManyChunks) {
  // Small files close together, large ones, and gaps that no chunk fills.
  ChunkMap map;
  std::vector<uint64_t> offsets;
  uint64_t end = 2 * kBlock;
  for (uint64_t file = 0; file < 3000; ++file) {
    const uint64_t bytes = file % 100 < 90 ? 1 + file % 7000 : 100'000 + file;
    map.chunks.push_back(Chunk(file, 0, bytes, kZerosSpan, 0));
    map.chunks.back().digest = {};
    map.chunks.back().has_digest = false;
    offsets.push_back(end);
    end += (bytes + kBlock - 1) / kBlock * kBlock + (file % 500 == 0 ? 1000 * kBlock : 0);
  }
  map.regular_files = 3000;
  const UniqueFd fd = NewFile();
  ASSERT_THAT(ChunkTable::Write(fd.get(), map, offsets, end, kFacts), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable table, ChunkTable::Open(fd.get()));
  for (uint32_t i = 0; i < table.chunks(); ++i) {
    const ImageRange place = table.place(i);
    ASSERT_EQ(place.begin, offsets[i]);
    ASSERT_EQ(table.FirstChunkAt(place.begin), i);
    ASSERT_EQ(table.FirstChunkAt(place.end - 1), i);
    ASSERT_EQ(table.FirstChunkAt(place.end), i + 1);
  }
  EXPECT_EQ(table.FirstChunkAt(0), 0U);
  EXPECT_EQ(table.FirstChunkAt(end - 1), table.chunks());
}

TEST_F(ChunkTableTest, CountsTheSpansBefore) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable table, Open(Written()));
  EXPECT_EQ(table.SpansBefore(0), 0U);
  EXPECT_EQ(table.SpansBefore(10), 0U);
  EXPECT_EQ(table.SpansBefore(11), 1U);
  EXPECT_EQ(table.SpansBefore(300), 2U);
  EXPECT_EQ(table.SpansBefore(~uint64_t{0}), 3U);
}

TEST_F(ChunkTableTest, MayBeEmpty) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable table, Open(Written(ChunkMap(), {})));
  EXPECT_EQ(table.chunks(), 0U);
  EXPECT_EQ(table.spans(), 0U);
  EXPECT_EQ(table.FirstChunkAt(0), 0U);
  EXPECT_EQ(table.SpansBefore(5), 0U);
}

TEST_F(ChunkTableTest, OutlivesItsDescriptorAndItsPlace) {
  STRATA_ASSERT_OK_AND_ASSIGN(ChunkTable first, Open(Written()));
  STRATA_ASSERT_OK_AND_ASSIGN(ChunkTable second, Open(Written(ChunkMap(), {})));
  second = std::move(first);
  EXPECT_EQ(second.chunks(), 5U);
  EXPECT_EQ(second.chunk(1).bytes, 100U);
}

TEST_F(ChunkTableTest, TellsItsContentByItsChecksum) {
  ChunkMap other = MakeMap();
  other.chunks[0].digest[0] ^= 1;
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable one, Open(Written()));
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable same, Open(Written()));
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkTable changed, Open(Written(other)));
  EXPECT_EQ(one.checksum(), same.checksum());
  EXPECT_NE(one.checksum(), changed.checksum());
}

TEST_F(ChunkTableTest, RefusesEveryFlippedByte) {
  const std::string good = Written();
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x20);
    ASSERT_THAT(Open(bad), StatusIs(StatusCode::kDataLoss)) << "byte " << at;
  }
}

TEST_F(ChunkTableTest, RefusesEveryOtherLength) {
  const std::string good = Written();
  for (size_t length = 0; length < good.size(); ++length) {
    ASSERT_THAT(Open(good.substr(0, length)), StatusIs(StatusCode::kDataLoss)) << length;
  }
  EXPECT_THAT(Open(good + '\0'), StatusIs(StatusCode::kDataLoss));
}

TEST_F(ChunkTableTest, NamesAVersionThatItDoesNotKnow) {
  EXPECT_THAT(Open(With<uint32_t>(Written(), kVersionAt, 2)),
              StatusIs(StatusCode::kDataLoss, HasSubstr("version 2 is not known")));
}

struct HostileField {
  const char* name;
  size_t at;
  int bytes;
  uint64_t value;
};

void PrintTo(const HostileField& field, std::ostream* out) {
  *out << field.name;
}

class HostileChunkTableTest : public ChunkTableTest,
                              public ::testing::WithParamInterface<HostileField> {};

TEST_P(HostileChunkTableTest, IsRefusedAlthoughItsChecksumHolds) {
  const HostileField& field = GetParam();
  std::string table = Written();
  ASSERT_THAT(Open(Sealed(table)), IsOk());
  std::memcpy(table.data() + field.at, &field.value, static_cast<size_t>(field.bytes));
  EXPECT_THAT(Open(Sealed(table)), StatusIs(StatusCode::kDataLoss));
}

constexpr size_t kSpan1 = kSpansAt + kSpanBytes;
constexpr size_t kChunksAt = kSpansAt + 3 * kSpanBytes;
constexpr size_t kChunk1 = kChunksAt + kChunkBytes;
constexpr size_t kZeros = kChunksAt + 3 * kChunkBytes;
constexpr size_t kGroupsAt = kChunksAt + 5 * kChunkBytes;
constexpr uint64_t kHuge = ~uint64_t{0};

INSTANTIATE_TEST_SUITE_P(
    Fields, HostileChunkTableTest,
    ::testing::Values(
        HostileField{"Magic", 0, 8, 0}, HostileField{"Spans", 16, 4, 2},
        HostileField{"SpansHuge", 16, 4, kHuge}, HostileField{"Chunks", 20, 4, 4},
        HostileField{"ChunksHuge", 20, 4, kHuge}, HostileField{"Fetched", 24, 4, 3},
        HostileField{"Flags", 28, 4, 2}, HostileField{"ImageTooShort", 32, 8, 5 * kBlock},
        HostileField{"ImageEmpty", 32, 8, 0}, HostileField{"DataBytes", 40, 8, 12151},
        HostileField{"FetchedBytes", 48, 8, 9149},
        HostileField{"MetadataOverData", 56, 8, 3 * kBlock},
        HostileField{"MetadataHuge", 56, 8, kHuge}, HostileField{"Reserved", 127, 1, 1},
        HostileField{"SpanOverlapsTheOneBefore", kSpan1, 8, 99},
        HostileField{"SpanOffsetHuge", kSpan1, 8, kHuge},
        HostileField{"SpanOfNothing", kSpan1 + 8, 8, 0},
        HostileField{"SpanOverlapsTheNext", kSpan1 + 8, 8, 201},
        HostileField{"SpanBytesHuge", kSpan1 + 8, 8, kHuge},
        HostileField{"SpanDecodesToLess", kSpan1 + 16, 8, 99},
        HostileField{"FirstOfFirstSpan", kSpansAt + 24, 4, 1},
        HostileField{"SpanWithoutChunks", kSpan1 + 24, 4, 0},
        HostileField{"FirstTooEarly", kSpan1 + 24, 4, 1},
        HostileField{"FirstTooLate", kSpan1 + 24, 4, 3},
        HostileField{"FirstHuge", kSpan1 + 24, 4, kHuge}, HostileField{"Codec", kSpan1 + 28, 1, 3},
        HostileField{"SpanReserved", kSpan1 + 31, 1, 1},
        HostileField{"ChunkInMetadata", kChunksAt, 8, kBlock},
        HostileField{"ChunkOverlaps", kChunk1, 8, 2 * kBlock + 3999},
        HostileField{"ChunkOffsetHuge", kChunk1, 8, kHuge},
        HostileField{"ChunkOfNothing", kChunk1 + 8, 8, 0},
        HostileField{"ChunkBytes", kChunk1 + 8, 8, 99},
        HostileField{"ChunkBytesHuge", kChunk1 + 8, 8, kHuge},
        HostileField{"InnerOffset", kChunk1 + 16, 8, 1},
        HostileField{"InnerOffsetHuge", kChunk1 + 16, 8, kHuge},
        HostileField{"SpanOfAnother", kChunk1 + 24, 4, 0},
        HostileField{"SpanUnknown", kChunk1 + 24, 4, 3},
        HostileField{"SpanBecomesZeros", kChunk1 + 24, 4, kZerosSpan},
        HostileField{"ChunkFlags", kChunk1 + 28, 4, 3},
        HostileField{"DigestWithoutFlag", kChunk1 + 28, 4, 0},
        HostileField{"ZerosInnerOffset", kZeros + 16, 8, 1},
        HostileField{"ZerosSpan", kZeros + 24, 4, 2}, HostileField{"ZerosFlags", kZeros + 28, 4, 1},
        HostileField{"ZerosDigest", kZeros + 63, 1, 1},
        HostileField{"GroupOfAnotherSpan", kGroupsAt + 4, 4, 1},
        HostileField{"GroupTwice", kGroupsAt + 4, 4, 0},
        HostileField{"GroupOutOfOrder", kGroupsAt, 8, 2},
        HostileField{"GroupUnknown", kGroupsAt + 12, 4, 5},
        HostileField{"GroupHuge", kGroupsAt + 12, 4, kHuge}),
    [](const auto& tested) { return tested.param.name; });

struct RefusedMap {
  const char* name;
  std::function<void(ChunkMap&, std::vector<uint64_t>&)> spoil;
};

void PrintTo(const RefusedMap& map, std::ostream* out) {
  *out << map.name;
}

class RefusedChunkMapTest : public ChunkTableTest,
                            public ::testing::WithParamInterface<RefusedMap> {};

TEST_P(RefusedChunkMapTest, IsInvalid) {
  ChunkMap map = MakeMap();
  std::vector<uint64_t> offsets = kOffsets;
  GetParam().spoil(map, offsets);
  const UniqueFd fd = NewFile();
  EXPECT_THAT(ChunkTable::Write(fd.get(), map, offsets, kImageBytes, kFacts),
              StatusIs(StatusCode::kInvalidArgument));
}

INSTANTIATE_TEST_SUITE_P(
    Maps, RefusedChunkMapTest,
    ::testing::Values(
        RefusedMap{"FilesOverlap", [](auto&, auto& offsets) { offsets[1] = 2 * kBlock; }},
        RefusedMap{"LeavesTheImage", [](auto&, auto& offsets) { offsets[1] = 5 * kBlock; }},
        RefusedMap{"LeavesEverything", [](auto&, auto& offsets) { offsets[1] = kNoData - 1; }},
        RefusedMap{"InTheMetadata", [](auto&, auto& offsets) { offsets[0] = kBlock; }},
        RefusedMap{"UnknownFile", [](auto&, auto& offsets) { offsets.pop_back(); }},
        RefusedMap{"UnknownSpan", [](auto& map, auto&) { map.chunks[0].span = 4; }},
        RefusedMap{"LeavesItsSpan", [](auto& map, auto&) { map.chunks[1].inner_offset = 1; }},
        RefusedMap{"SpansOverlap", [](auto& map, auto&) { map.spans[1].blob_offset = 99; }},
        RefusedMap{"EmptySpan", [](auto& map, auto&) { map.spans[0].blob_bytes = 0; }},
        RefusedMap{"EmptyChunk", [](auto& map, auto&) { map.chunks[0].bytes = 0; }}),
    [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace strata
