// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fill_plan.h"

#include <algorithm>
#include <limits>

namespace strata {

ChunkRange ChunksIn(const ChunkTable& table, uint64_t offset, uint64_t bytes) {
  if (bytes == 0) {
    return {};
  }
  const uint64_t last = offset + std::min(bytes - 1, std::numeric_limits<uint64_t>::max() - offset);
  ChunkRange range;
  range.first = table.FirstChunkAt(offset);
  // Most ranges lie in one chunk.
  const bool in_one = range.first < table.chunks() && table.place(range.first).end > last;
  range.end = in_one ? range.first : table.FirstChunkAt(last);
  if (range.end < table.chunks() && table.place(range.end).begin <= last) {
    ++range.end;
  }
  return range;
}

std::vector<uint32_t> AbsentSpans(const ChunkTable& table, const Extents& extents,
                                  ChunkRange range) {
  std::vector<uint32_t> spans;
  for (uint32_t i = extents.FirstAbsent(range.first, range.end); i < range.end;
       i = extents.FirstAbsent(i + 1, range.end)) {
    const uint32_t span = table.chunk(i).span;
    if (span != kZerosSpan && (spans.empty() || spans.back() != span)) {
      spans.push_back(span);
    }
  }
  std::sort(spans.begin(), spans.end());
  spans.erase(std::unique(spans.begin(), spans.end()), spans.end());
  return spans;
}

bool IsSpanAbsent(const ChunkTable& table, const Extents& extents, uint32_t span) {
  const std::span<const uint32_t> chunks = table.ChunksOf(span);
  return std::any_of(chunks.begin(), chunks.end(),
                     [&extents](uint32_t chunk) { return !extents.Has(chunk); });
}

bool FetchGroup::Add(const TableSpan& span) {
  if (empty()) {
    offset_ = span.blob_offset;
    bytes_ = span.blob_bytes;
    span_bytes_ = span.blob_bytes;
    return true;
  }
  const uint64_t end = offset_ + bytes_;
  if (span.blob_offset < end || span.blob_offset - end > most_gap_) {
    return false;
  }
  const uint64_t bytes = span.blob_offset - offset_ + span.blob_bytes;
  if (bytes > most_bytes_) {
    return false;
  }
  bytes_ = bytes;
  span_bytes_ += span.blob_bytes;
  return true;
}

}  // namespace strata
