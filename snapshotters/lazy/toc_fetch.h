// SPDX-License-Identifier: Apache-2.0
//
// FetchToc: footer and compressed TOC of a layer's blob in one request, or in two when the TOC is
// larger than what the first one brought. Safe from any thread; never blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/footer.h"
#include "snapshotters/lazy/toc_pin.h"
#include "snapshotters/registry/blob_client.h"

namespace strata {

struct FetchedToc {
  uint64_t blob_bytes = 0;
  Footer footer;
  std::string compressed;  // empty for kExternalToc
};
using TocCallback = std::function<void(StatusOr<FetchedToc>)>;

struct TocQuestion {
  std::shared_ptr<Blob> blob;
  uint64_t blob_bytes = 0;  // 0: unknown
  TocPin pin;
  // Of the layer by its annotations, where they say it: with pin.manifest_position and blob_bytes
  // just the TOC is asked for and the footer not looked at, since the pin holds the TOC.
  std::optional<LayerFormat> zstd_format;
  bool need_pin = true;  // a layer without one is not worth more than its footer
  uint64_t longest_toc = uint64_t{512} << 20;
  Deadline deadline = Deadline::max();
};

// Whether the manifest pins the TOC of a layer of this format: a checksum of the compressed TOC is
// zstd:chunked's alone.
bool IsPinned(LayerFormat format, const TocPin& pin);

// ResourceExhausted, reason kLimits.
Status TocTooLong(uint64_t bytes, uint64_t longest);

// FailedPrecondition: not a lazy layer, or (reason kNoPin) not pinned. DataLoss: what the manifest
// says or the footer claims does not hold. ResourceExhausted: a longer TOC. Else as Blob has it.
// The callback comes on the I/O thread of the blob.
void FetchToc(const TocQuestion& question, TocCallback callback);

// All of a blob of `bytes` bytes, in memory; on the I/O thread too.
void FetchWhole(const std::shared_ptr<Blob>& blob, uint64_t bytes, Deadline deadline,
                std::function<void(StatusOr<std::string>)> callback);

}  // namespace strata
