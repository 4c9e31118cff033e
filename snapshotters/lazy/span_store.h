// SPDX-License-Identifier: Apache-2.0
//
// From the decoded bytes of a span to chunks that are present: verified, then written, then marked.
// Safe from any thread, for different spans.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/layer_image.h"
#include "snapshotters/lazy/space_reserve.h"

namespace strata {

struct StoreResult {
  Status verified;  // DataLoss: a chunk does not hold; names it
  Status written;   // the first failure of the file system
  uint64_t written_bytes = 0;
  uint32_t mismatches = 0;          // chunks
  bool marked = false;              // something has become present
  std::vector<uint32_t> unwritten;  // verified chunks whose bytes are not in the image
};

// Stores those chunks of the span that are absent; one that does not hold leaves the others alone.
// When the disk is full, what `reserve` (if any) has for the layer is used.
StoreResult StoreSpan(LayerImage& image, uint32_t span, std::span<const uint8_t> decoded,
                      SpaceReserve* reserve);

// Whether `status` says that there is no room on the disk.
bool IsDiskFull(const Status& status);

}  // namespace strata
