// SPDX-License-Identifier: Apache-2.0
//
// LayerDecoder: what the bytes of a layer's blob stand for. One thread at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>

#include "snapshotters/base/status.h"

namespace strata {

// Fills `buffer`; 0 at the end.
using ByteSource = std::function<StatusOr<size_t>(char* buffer, size_t size)>;

class LayerDecoder {
 public:
  virtual ~LayerDecoder() = default;
  // Fills as much of `buffer` as there is; 0 at the end. DataLoss: broken or cut off, or there is
  // something behind the end that is of another kind.
  virtual StatusOr<size_t> Read(char* buffer, size_t size) = 0;
};

// By its first bytes: gzip, zstd, else what is there itself. FailedPrecondition names a compression
// that layers do not have (xz, bzip2).
StatusOr<std::unique_ptr<LayerDecoder>> OpenLayerDecoder(ByteSource source);

}  // namespace strata
