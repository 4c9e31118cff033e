// SPDX-License-Identifier: Apache-2.0
//
// A TOC's JSON and the chunk map of it: nothing crashes, entries keep what toc.h promises, and the
// map covers every file with spans that are in order and within the payload.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/lazy/chunk_map.h"
#include "snapshotters/lazy/toc.h"

namespace {

using strata::ChunkMapBuilder;
using strata::EntryType;
using strata::Status;
using strata::TocEntry;

constexpr uint64_t kPayloadEnd = 1 << 30;

class CheckingVisitor : public strata::TocVisitor {
 public:
  explicit CheckingVisitor(ChunkMapBuilder& builder) : builder_(builder) {}

  Status OnEntry(const TocEntry& entry) override {
    STRATA_CHECK(entry.mode <= 07777 && entry.mtime_ns < 1'000'000'000);
    STRATA_CHECK(!entry.name.starts_with('/') && !entry.name.ends_with('/'));
    STRATA_CHECK(entry.name.find('\0') == std::string_view::npos);
    STRATA_CHECK(("/" + std::string(entry.name) + "/").find("/../") == std::string::npos);
    for (const strata::TocXattr& xattr : entry.xattrs) {
      STRATA_CHECK(!xattr.name.empty());
    }
    if (entry.type == EntryType::kRegular) {
      sizes_.push_back(entry.size);
    }
    return builder_.Add(entry);
  }

  [[nodiscard]] const std::vector<uint64_t>& sizes() const { return sizes_; }

 private:
  ChunkMapBuilder& builder_;
  std::vector<uint64_t> sizes_;
};

void CheckMap(const strata::ChunkMap& map, std::vector<uint64_t> sizes) {
  uint64_t end = 0;
  for (const strata::SpanRecord& span : map.spans) {
    STRATA_CHECK(span.blob_offset >= end && span.blob_bytes > 0);
    end = span.blob_offset + span.blob_bytes;
    STRATA_CHECK(end <= kPayloadEnd);
  }
  for (const strata::ChunkRecord& chunk : map.chunks) {
    STRATA_CHECK(chunk.bytes > 0 && chunk.bytes <= sizes.at(chunk.file_index));
    sizes[chunk.file_index] -= chunk.bytes;
    if (chunk.span != strata::kZerosSpan) {
      STRATA_CHECK(chunk.inner_offset + chunk.bytes <= map.spans.at(chunk.span).decoded_bytes);
    }
  }
  for (const uint64_t missing : sizes) {
    STRATA_CHECK(missing == 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const strata::TocLimits limits;
  const strata::Footer footer = {.format = strata::LayerFormat::kZstdChunkedContainers,
                                 .payload_end = kPayloadEnd};
  std::string json(reinterpret_cast<const char*>(data), size);
  ChunkMapBuilder builder(footer, limits);
  CheckingVisitor visitor(builder);
  const auto summary = strata::ParseToc(json, limits, visitor);
  if (!summary.ok()) {
    STRATA_CHECK(summary.status().code() == strata::StatusCode::kDataLoss);
    return 0;
  }
  auto map = builder.Finish();
  if (map.ok()) {
    STRATA_CHECK(map->regular_files == visitor.sizes().size());
    CheckMap(*map, visitor.sizes());
  }
  return 0;
}
