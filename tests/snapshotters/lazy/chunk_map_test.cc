// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/chunk_map.h"

#include <initializer_list>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::IsOk;
using testing::StatusIs;

constexpr uint64_t kPayloadEnd = 100'000;

Sha256Digest DigestOf(uint8_t mark) {
  Sha256Digest digest = {};
  digest.fill(mark);
  return digest;
}

StatusOr<ChunkMap> Build(const std::vector<TocEntry>& entries,
                         LayerFormat format = LayerFormat::kEstargz, const TocLimits& limits = {}) {
  ChunkMapBuilder builder({.format = format, .payload_end = kPayloadEnd}, limits);
  for (const TocEntry& entry : entries) {
    STRATA_RETURN_IF_ERROR(builder.Add(entry));
  }
  return builder.Finish();
}

TocEntry File(uint64_t size, uint64_t offset, uint64_t chunk_size = 0) {
  return {.type = EntryType::kRegular, .size = size, .offset = offset, .chunk_size = chunk_size};
}

TocEntry Chunk(uint64_t chunk_offset, uint64_t offset, uint64_t chunk_size = 0) {
  return {.type = EntryType::kChunk,
          .offset = offset,
          .chunk_offset = chunk_offset,
          .chunk_size = chunk_size};
}

TocEntry Inner(TocEntry entry, uint64_t inner_offset) {
  entry.inner_offset = inner_offset;
  return entry;
}

TocEntry Zeros(TocEntry entry) {
  entry.zeros = true;
  return entry;
}

SpanRecord GzipSpan(uint64_t offset, uint64_t bytes, uint64_t decoded) {
  return {.blob_offset = offset, .blob_bytes = bytes, .decoded_bytes = decoded};
}

TEST(ChunkMapTest, EndsASpanWhereTheNextBegins) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const ChunkMap map,
      Build({File(10, 100), {.type = EntryType::kDirectory}, File(0, 0), File(20, 150)}));
  EXPECT_EQ(map.spans, (std::vector{GzipSpan(100, 50, 10), GzipSpan(150, kPayloadEnd - 150, 20)}));
  EXPECT_EQ(map.regular_files, 3);
  EXPECT_EQ(map.unverified_chunks, 2);
  ASSERT_EQ(map.chunks.size(), 2);
  EXPECT_EQ(map.chunks[1],
            (ChunkRecord{.file_index = 2, .file_offset = 0, .bytes = 20, .span = 1}));
}

TEST(ChunkMapTest, LetsAChunkWithoutSizeReachToTheFilesEnd) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkMap map,
                              Build({File(10, 100, 4), Chunk(4, 200, 4), Chunk(8, 300)}));
  ASSERT_EQ(map.chunks.size(), 3);
  EXPECT_EQ(map.chunks[2], (ChunkRecord{.file_index = 0, .file_offset = 8, .bytes = 2, .span = 2}));
  EXPECT_EQ(map.spans[1], GzipSpan(200, 100, 4));
}

TEST(ChunkMapTest, PutsPayloadsOfOneMemberIntoOneSpan) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const ChunkMap map, Build({Inner(File(10, 0), 512), Inner(File(20, 0), 1536), File(5, 900),
                                 Inner(File(6, 900), 1000)}));
  EXPECT_EQ(map.spans,
            (std::vector{GzipSpan(0, 900, 1556), GzipSpan(900, kPayloadEnd - 900, 1006)}));
  EXPECT_EQ(map.chunks[1],
            (ChunkRecord{.file_index = 1, .bytes = 20, .span = 0, .inner_offset = 1536}));
  EXPECT_EQ(map.chunks[3].span, 1);
}

TEST(ChunkMapTest, GivesZerosNoSpan) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const ChunkMap map,
      Build({File(1 << 30, 100, 4), Zeros(Chunk(4, 0, (1 << 30) - 8)), Chunk((1 << 30) - 4, 200)},
            LayerFormat::kZstdChunkedContainers));
  ASSERT_EQ(map.spans.size(), 2);
  EXPECT_EQ(map.spans[0].codec, SpanCodec::kZstd);
  EXPECT_EQ(map.spans[0].blob_bytes, 100);
  EXPECT_EQ(map.chunks[1].span, kZerosSpan);
  EXPECT_EQ(map.chunks[2].span, 1);
  EXPECT_EQ(map.unverified_chunks, 2);
}

TEST(ChunkMapTest, TakesAFileOfZerosOnly) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkMap map, Build({Zeros(File(1 << 30, 0))}));
  EXPECT_TRUE(map.spans.empty());
  EXPECT_EQ(map.chunks.size(), 1);
  EXPECT_EQ(map.unverified_chunks, 0);
}

TEST(ChunkMapTest, EndsTheLastSpanOfAFileAtItsEndOffset) {
  TocEntry file = File(10, 100, 4);
  file.end_offset = 250;
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkMap map, Build({file, Chunk(4, 200), File(5, 400)},
                                                        LayerFormat::kZstdChunkedContainers));
  EXPECT_EQ(map.spans[0].blob_bytes, 100);
  EXPECT_EQ(map.spans[1].blob_bytes, 50);
  EXPECT_EQ(map.spans[2].blob_bytes, kPayloadEnd - 400);
}

TEST(ChunkMapTest, HoldsAnOnlyChunkToTheFilesDigest) {
  TocEntry file = File(10, 100);
  file.digest = DigestOf(1);
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkMap one, Build({file}));
  EXPECT_TRUE(one.chunks[0].has_digest);
  EXPECT_EQ(one.chunks[0].digest, DigestOf(1));
  EXPECT_EQ(one.unverified_chunks, 0);
  file.chunk_size = 4;
  TocEntry second = Chunk(4, 200);
  second.chunk_digest = DigestOf(2);
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkMap two, Build({file, second}));
  EXPECT_FALSE(two.chunks[0].has_digest);
  EXPECT_EQ(two.chunks[1].digest, DigestOf(2));
  EXPECT_EQ(two.unverified_chunks, 1);
}

TEST(ChunkMapTest, PrefersTheDigestOfTheChunk) {
  TocEntry file = File(10, 100);
  file.digest = DigestOf(1);
  file.chunk_digest = DigestOf(2);
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkMap map, Build({file}));
  EXPECT_EQ(map.chunks[0].digest, DigestOf(2));
}

TEST(ChunkMapTest, AcceptsAnEmptyLayer) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ChunkMap map, Build({}));
  EXPECT_TRUE(map.spans.empty());
  EXPECT_TRUE(map.chunks.empty());
}

struct ChunkCase {
  std::string name;
  std::vector<TocEntry> entries;
};

class BadChunksTest : public ::testing::TestWithParam<ChunkCase> {};

TEST_P(BadChunksTest, AreRefused) {
  const TocLimits limits = {
      .chunk_bytes = 1000, .span_blob_bytes = kPayloadEnd - 100, .span_decoded_bytes = 5000};
  EXPECT_THAT(Build(GetParam().entries, LayerFormat::kEstargz, limits),
              StatusIs(StatusCode::kDataLoss));
}

TocEntry WithEnd(TocEntry entry, uint64_t end_offset) {
  entry.end_offset = end_offset;
  return entry;
}

constexpr uint64_t kHuge = ~uint64_t{0};

INSTANTIATE_TEST_SUITE_P(Hostile, BadChunksTest,
                         ::testing::ValuesIn(std::vector<ChunkCase>{
                             {"chunk_without_file", {Chunk(0, 100)}},
                             {"chunk_after_directory",
                              {File(10, 100, 4), {.type = EntryType::kDirectory}, Chunk(4, 200)}},
                             {"chunk_after_complete_file", {File(10, 100), Chunk(0, 200)}},
                             {"first_chunk_not_at_start", {Chunk(4, 100), File(10, 100)}},
                             {"gap_in_file", {File(10, 100, 4), Chunk(5, 200)}},
                             {"overlap_in_file", {File(10, 100, 4), Chunk(3, 200)}},
                             {"too_few_chunks", {File(10, 100, 4)}},
                             {"too_few_chunks_then_file", {File(10, 100, 4), File(10, 200)}},
                             {"chunk_beyond_file", {File(10, 100, 11)}},
                             {"chunk_size_wraps", {File(10, 100, 4), Chunk(4, 200, kHuge)}},
                             {"chunk_too_large", {File(1001, 100)}},
                             {"no_offset", {File(10, 0)}},
                             {"same_offset", {File(10, 100), File(10, 100)}},
                             {"backwards", {File(10, 200), File(10, 100)}},
                             {"behind_payload", {File(10, kPayloadEnd)}},
                             {"offset_huge", {File(10, kHuge)}},
                             {"inner_overlaps", {File(10, 100), Inner(File(10, 100), 9)}},
                             {"inner_wraps", {Inner(File(10, 100), kHuge)}},
                             {"inner_too_large", {Inner(File(10, 100), 4991)}},
                             {"expands_too_much", {Inner(File(10, 100), 4900), File(10, 101)}},
                             {"span_too_large", {File(10, 1)}},
                             {"end_before_start", {WithEnd(File(10, 100), 100)}},
                             {"end_behind_payload", {WithEnd(File(10, 100), kPayloadEnd + 1)}},
                             {"next_before_end", {WithEnd(File(10, 100), 200), File(10, 199)}},
                             {"inner_after_end",
                              {WithEnd(File(10, 100), 200), Inner(File(10, 100), 100)}},
                         }),
                         [](const auto& test_info) { return test_info.param.name; });

TEST(ChunkMapTest, TakesWhatJustFits) {
  const TocLimits limits = {
      .chunk_bytes = 1000, .span_blob_bytes = kPayloadEnd - 100, .span_decoded_bytes = 5000};
  EXPECT_THAT(Build({Inner(File(1000, 100), 4000)}, LayerFormat::kEstargz, limits), IsOk());
  EXPECT_THAT(Build({File(10, kPayloadEnd - 1)}, LayerFormat::kEstargz, limits), IsOk());
}

}  // namespace
}  // namespace strata
