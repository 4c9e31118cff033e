// SPDX-License-Identifier: Apache-2.0
//
// From a range of an image to the spans that have to be fetched for it, and from spans to ranges of
// the blob. Pure, safe from any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "snapshotters/lazy/chunk_table.h"
#include "snapshotters/lazy/extents.h"

namespace strata {

struct ChunkRange {
  uint32_t first = 0;
  uint32_t end = 0;  // behind the last one
};

// The chunks that have a byte in [offset, offset + bytes) of the image.
ChunkRange ChunksIn(const ChunkTable& table, uint64_t offset, uint64_t bytes);

// The spans of the absent chunks in `range`, each once, in the order of the blob.
std::vector<uint32_t> AbsentSpans(const ChunkTable& table, const Extents& extents,
                                  ChunkRange range);

// Whether a chunk of the span is absent.
bool IsSpanAbsent(const ChunkTable& table, const Extents& extents, uint32_t span);

// Spans that are asked for in one request: neighbours in the blob.
class FetchGroup {
 public:
  // The first span may be longer than `most_bytes`; `most_gap` bytes that nobody wants may lie
  // between two spans.
  FetchGroup(uint64_t most_bytes, uint64_t most_gap)
      : most_bytes_(most_bytes), most_gap_(most_gap) {}

  // False: it lies elsewhere or would make the range too long; nothing was added.
  bool Add(const TableSpan& span);
  [[nodiscard]] bool empty() const { return bytes_ == 0; }
  [[nodiscard]] uint64_t offset() const { return offset_; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }            // of the range
  [[nodiscard]] uint64_t span_bytes() const { return span_bytes_; }  // without gaps

 private:
  const uint64_t most_bytes_;
  const uint64_t most_gap_;
  uint64_t offset_ = 0;
  uint64_t bytes_ = 0;
  uint64_t span_bytes_ = 0;
};

}  // namespace strata
