// SPDX-License-Identifier: Apache-2.0
//
// ChunkTable: which bytes of the blob fill which part of an image's data (FORMAT.md, "chunks"),
// mapped from its file. Immutable, safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/status.h"
#include "snapshotters/lazy/chunk_map.h"
#include "snapshotters/lazy/span_decoder.h"

namespace strata {

// What is fetched and decoded as one.
struct TableSpan {
  uint64_t blob_offset = 0;
  uint64_t blob_bytes = 0;
  uint64_t decoded_bytes = 0;
  SpanCodec codec = SpanCodec::kGzip;
};

// What is verified and becomes present as one.
struct TableChunk {
  uint64_t image_offset = 0;
  uint64_t bytes = 0;
  uint32_t span = 0;          // or kZerosSpan: nothing to fetch, the image's hole is its content
  uint64_t inner_offset = 0;  // in the decoded span
  Sha256Digest digest = {};
  bool has_digest = false;
};

// Bytes [begin, end) of the image.
struct ImageRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};

// What else the table keeps of its image: the part before the data, which is written once.
struct ImageFacts {
  uint64_t metadata_bytes = 0;
  uint32_t metadata_checksum = 0;  // CRC-32C
  bool has_xattrs = false;         // any inode has any
  friend bool operator==(const ImageFacts&, const ImageFacts&) = default;
};

class ChunkTable {
 public:
  // Writes the table of `map` to `fd` (empty): the data of its regular file number i begins at
  // data_offset[i] of the image, ErofsLayout::kNoData for files that are not in it (their chunks
  // are left out, and so are spans that then fill nothing: the rest is numbered anew). Does not
  // sync. InvalidArgument: chunks that overlap, leave the image's data or their span.
  static Status Write(int fd, const ChunkMap& map, std::span<const uint64_t> data_offset,
                      uint64_t image_bytes, const ImageFacts& facts = {});

  // Maps the file; the mapping outlives `fd`. DataLoss: anything that Write would not have written
  // (header, sizes, checksum over all of it, order, references), or a version that is not known.
  static StatusOr<ChunkTable> Open(int fd);
  ~ChunkTable();
  ChunkTable(ChunkTable&& other) noexcept;
  ChunkTable& operator=(ChunkTable&& other) noexcept;

  [[nodiscard]] uint32_t spans() const { return spans_; }
  [[nodiscard]] uint32_t chunks() const { return chunks_; }
  [[nodiscard]] uint64_t image_bytes() const { return image_bytes_; }
  [[nodiscard]] const ImageFacts& facts() const { return facts_; }
  // Identifies this table's content; sidecars that belong to it carry it.
  [[nodiscard]] uint32_t checksum() const { return checksum_; }

  // In the order of the blob. `index` < spans().
  [[nodiscard]] TableSpan span(uint32_t index) const;
  // In the order of the image. `index` < chunks().
  [[nodiscard]] TableChunk chunk(uint32_t index) const;
  // Where it is in the image, which is cheaper than all of it.
  [[nodiscard]] ImageRange place(uint32_t index) const;
  // The first chunk that ends behind `image_offset`; chunks() if there is none.
  [[nodiscard]] uint32_t FirstChunkAt(uint64_t image_offset) const;
  // The chunks of a span by inner offset: indexes into chunk().
  [[nodiscard]] std::span<const uint32_t> ChunksOf(uint32_t span) const;
  // How many spans begin before `blob_offset`.
  [[nodiscard]] uint32_t SpansBefore(uint64_t blob_offset) const;
  // Chunks with something to fetch; all others are of kZerosSpan.
  [[nodiscard]] uint32_t fetched_chunks() const { return fetched_chunks_; }
  // The bytes of all chunks, and of those with something to fetch.
  [[nodiscard]] uint64_t data_bytes() const { return data_bytes_; }
  [[nodiscard]] uint64_t fetched_bytes() const { return fetched_bytes_; }

 private:
  ChunkTable() = default;
  [[nodiscard]] Status Validate();
  [[nodiscard]] Status ValidateSpans() const;
  [[nodiscard]] Status ValidateChunks();
  [[nodiscard]] Status ValidateGroups() const;
  void MakeSigns();

  const uint8_t* mapping_ = nullptr;
  size_t mapped_bytes_ = 0;
  uint32_t spans_ = 0;
  uint32_t chunks_ = 0;
  uint32_t fetched_chunks_ = 0;
  uint32_t checksum_ = 0;
  uint64_t image_bytes_ = 0;
  uint64_t data_bytes_ = 0;
  uint64_t fetched_bytes_ = 0;
  ImageFacts facts_;
  // Signposts for FirstChunkAt, few enough to stay in the CPU's caches: of each stretch of the
  // image, the first chunk that ends behind its beginning.
  std::vector<uint32_t> signs_;
  unsigned stretch_bits_ = 0;
};

}  // namespace strata
