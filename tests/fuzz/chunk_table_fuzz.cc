// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a chunk table: nothing crashes, and one that is accepted keeps all that the filler
// builds on, without looking, afterwards.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/lazy/chunk_table.h"
#include "snapshotters/lazy/crc32c.h"

namespace {

using strata::ChunkTable;
using strata::TableChunk;
using strata::TableSpan;

// No fuzzer guesses a checksum (FORMAT.md, "chunks"), so one that fits is put in.
std::string Sealed(std::string table) {
  constexpr size_t kChecksumAt = 12;
  uint32_t sum = 0;
  if (table.size() < kChecksumAt + sizeof(sum)) {
    return table;
  }
  std::memset(table.data() + kChecksumAt, 0, sizeof(sum));
  sum = strata::Crc32c({reinterpret_cast<const uint8_t*>(table.data()), table.size()});
  std::memcpy(table.data() + kChecksumAt, &sum, sizeof(sum));
  return table;
}

void CheckChunks(const ChunkTable& table) {
  uint64_t end = table.facts().metadata_bytes;
  uint64_t data_bytes = 0;
  for (uint32_t index = 0; index < table.chunks(); ++index) {
    const TableChunk chunk = table.chunk(index);
    STRATA_CHECK(chunk.bytes > 0 && chunk.image_offset >= end);
    STRATA_CHECK(chunk.image_offset <= table.image_bytes() &&
                 chunk.bytes <= table.image_bytes() - chunk.image_offset);
    end = chunk.image_offset + chunk.bytes;
    data_bytes += chunk.bytes;
    STRATA_CHECK(table.FirstChunkAt(chunk.image_offset) == index);
    STRATA_CHECK(table.FirstChunkAt(end - 1) == index);
    if (chunk.span == strata::kZerosSpan) {
      continue;
    }
    const TableSpan span = table.span(chunk.span);
    STRATA_CHECK(chunk.inner_offset <= span.decoded_bytes &&
                 chunk.bytes <= span.decoded_bytes - chunk.inner_offset);
    const auto group = table.ChunksOf(chunk.span);
    STRATA_CHECK(std::count(group.begin(), group.end(), index) == 1);
  }
  STRATA_CHECK(table.FirstChunkAt(end) == table.chunks());
  STRATA_CHECK(table.data_bytes() == data_bytes);
}

void CheckSpans(const ChunkTable& table) {
  uint64_t end = 0;
  size_t grouped = 0;
  for (uint32_t index = 0; index < table.spans(); ++index) {
    const TableSpan span = table.span(index);
    STRATA_CHECK(span.blob_bytes > 0 && span.blob_offset >= end);
    end = span.blob_offset + span.blob_bytes;
    STRATA_CHECK(end > span.blob_offset);
    STRATA_CHECK(table.SpansBefore(span.blob_offset) == index);
    STRATA_CHECK(table.SpansBefore(end) == index + 1);
    grouped += table.ChunksOf(index).size();
    STRATA_CHECK(!table.ChunksOf(index).empty());
  }
  STRATA_CHECK(grouped == table.fetched_chunks());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes = Sealed({reinterpret_cast<const char*>(data), size});
  const strata::UniqueFd fd(::memfd_create("chunks", MFD_CLOEXEC));
  STRATA_CHECK(fd.valid() && strata::WriteAll(fd.get(), bytes, "chunks").ok());
  const auto table = ChunkTable::Open(fd.get());
  if (!table.ok()) {
    STRATA_CHECK(table.status().code() == strata::StatusCode::kDataLoss);
    return 0;
  }
  CheckSpans(*table);
  CheckChunks(*table);
  return 0;
}
