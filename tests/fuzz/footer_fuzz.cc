// SPDX-License-Identifier: Apache-2.0
//
// The end of a blob: nothing crashes, and every range that is found lies within the blob.
#include <cstddef>
#include <cstdint>
#include <span>

#include "snapshotters/base/check.h"
#include "snapshotters/lazy/footer.h"

namespace {

void CheckWithin(const strata::BlobRange& range, uint64_t end) {
  STRATA_CHECK(range.offset <= end && range.bytes <= end - range.offset);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint64_t kMoreBytes = 1 << 20;
  const std::span<const uint8_t> bytes(data, size);
  const uint64_t blob_size = size < strata::kFooterTailBytes ? size : size + kMoreBytes;
  const auto footer = strata::ParseFooter(bytes, blob_size);
  if (!footer.ok()) {
    STRATA_CHECK(footer.status().code() == strata::StatusCode::kFailedPrecondition ||
                 footer.status().code() == strata::StatusCode::kDataLoss);
    return 0;
  }
  const uint64_t end = blob_size - footer->footer_bytes;
  CheckWithin(footer->toc, end);
  STRATA_CHECK(footer->payload_end <= footer->toc.offset);
  if (footer->tar_split.bytes > 0) {
    CheckWithin(footer->tar_split, end);
  }
  return 0;
}
