// SPDX-License-Identifier: Apache-2.0
//
// Which bytes of the blob each piece of each file comes from. A span is what must be fetched and
// decoded as one, a chunk is what is verified and becomes present as one. One thread per builder.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/status.h"
#include "snapshotters/lazy/footer.h"
#include "snapshotters/lazy/span_decoder.h"
#include "snapshotters/lazy/toc.h"

namespace strata {

struct SpanRecord {
  uint64_t blob_offset = 0;
  uint64_t blob_bytes = 0;
  // How much of what it decodes to is wanted; more may follow (tar headers).
  uint64_t decoded_bytes = 0;
  SpanCodec codec = SpanCodec::kGzip;
  friend bool operator==(const SpanRecord&, const SpanRecord&) = default;
};

// The span of a chunk that is all zeros.
constexpr uint32_t kZerosSpan = std::numeric_limits<uint32_t>::max();

struct ChunkRecord {
  uint64_t file_index = 0;  // of the regular files in the order of the TOC, empty ones too
  uint64_t file_offset = 0;
  uint64_t bytes = 0;         // never 0
  uint32_t span = 0;          // index, or kZerosSpan
  uint64_t inner_offset = 0;  // in the decoded span
  Sha256Digest digest = {};
  bool has_digest = false;
  friend bool operator==(const ChunkRecord&, const ChunkRecord&) = default;
};

struct ChunkMap {
  // In the order of the blob, disjoint, all before Footer::payload_end.
  std::vector<SpanRecord> spans;
  // By file, then by offset, without gaps: they cover every regular file exactly.
  std::vector<ChunkRecord> chunks;
  uint64_t regular_files = 0;
  // Chunks that have contents and no digest to hold them to (legacy stargz).
  uint64_t unverified_chunks = 0;
};

// Is shown the entries of a TOC in their order, which is that of their contents in the blob.
class ChunkMapBuilder {
 public:
  ChunkMapBuilder(const Footer& footer, const TocLimits& limits);

  // DataLoss: contents that are out of order, overlap, leave gaps, lie outside of the blob's
  // payload or are larger than the limits. The builder is of no use then.
  Status Add(const TocEntry& entry);
  StatusOr<ChunkMap> Finish();

 private:
  // The regular file whose chunks are coming.
  struct OpenFile {
    uint64_t size = 0;
    uint64_t covered = 0;
    uint64_t end_offset = 0;
    std::optional<Sha256Digest> digest;
    size_t first_chunk = 0;
  };

  Status AddData(const TocEntry& entry);
  Status PlaceInSpan(const TocEntry& entry, ChunkRecord& chunk);
  Status OpenSpan(uint64_t offset);
  // What the open span is, now that the first byte behind it is known.
  Status CloseSpan(uint64_t end);
  Status CloseFile();

  const Footer footer_;
  const TocLimits limits_;
  ChunkMap map_;
  std::optional<OpenFile> file_;
  bool span_open_ = false;  // the last of map_.spans has no end yet
  uint64_t blob_used_ = 0;  // no further span may begin before
};

}  // namespace strata
