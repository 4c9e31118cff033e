// SPDX-License-Identifier: Apache-2.0
//
// Decompresses spans: what is fetched of a blob and decoded as one. One SpanDecoder and one
// DecodedBuffer per thread; both are kept, because making their state costs more than a small span.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "snapshotters/base/status.h"

struct libdeflate_decompressor;
struct ZSTD_DCtx_s;

namespace strata {

enum class SpanCodec : uint8_t { kNone = 0, kGzip = 1, kZstd = 2 };

// Bytes that are not zeroed before they are written. Grows only.
class DecodedBuffer {
 public:
  [[nodiscard]] std::span<const uint8_t> bytes() const { return {data_.get(), size_}; }
  [[nodiscard]] size_t capacity() const { return capacity_; }

 private:
  friend class SpanDecoder;
  // Keeps the first `size_` bytes.
  void Reserve(size_t capacity);

  std::unique_ptr<uint8_t[]> data_;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

class SpanDecoder {
 public:
  SpanDecoder();
  ~SpanDecoder();
  SpanDecoder(const SpanDecoder&) = delete;
  SpanDecoder& operator=(const SpanDecoder&) = delete;

  // Decodes at least the first `needed` bytes of what the concatenated members (gzip) or frames
  // (zstd) of `compressed` hold; what follows is decoded only as far as the codec cannot stop
  // before, and never so that `out` has more than `most` bytes. Afterwards out.bytes() are all that
  // were decoded. DataLoss: damaged, ends too early, too large, or followed by foreign bytes; `out`
  // then holds nothing.
  Status Decode(SpanCodec codec, std::span<const uint8_t> compressed, uint64_t needed,
                uint64_t most, DecodedBuffer& out);

 private:
  Status DecodeGzip(std::span<const uint8_t> compressed, uint64_t needed, uint64_t most,
                    DecodedBuffer& out);
  Status DecodeZstd(std::span<const uint8_t> compressed, uint64_t needed, DecodedBuffer& out);

  struct GzipDeleter {
    void operator()(libdeflate_decompressor* decompressor) const;
  };
  struct ZstdDeleter {
    void operator()(ZSTD_DCtx_s* context) const;
  };
  // Made when first needed.
  std::unique_ptr<libdeflate_decompressor, GzipDeleter> gzip_;
  std::unique_ptr<ZSTD_DCtx_s, ZstdDeleter> zstd_;
};

}  // namespace strata
