// SPDX-License-Identifier: Apache-2.0
//
// What a registry sends for a span: nothing crashes, no limit is passed, and what is whole is
// decoded the same whatever the decoder decoded before.
#include <fuzzer/FuzzedDataProvider.h>
#include <zstd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/lazy/span_decoder.h"

namespace {

using strata::DecodedBuffer;
using strata::SpanCodec;
using strata::SpanDecoder;

constexpr uint64_t kMostBytes = 1 << 20;

// What libzstd 1.5.4 makes of a damaged frame before it notices hangs on what it decoded before.
// Whoever wants bytes of a span compares digests; what is whole is decoded the same each time.
bool IsWhole(SpanCodec codec, const std::vector<uint8_t>& compressed) {
  static std::vector<uint8_t>& decoded = *new std::vector<uint8_t>(4 * kMostBytes);
  return codec != SpanCodec::kZstd ||
         ZSTD_isError(ZSTD_decompress(decoded.data(), decoded.size(), compressed.data(),
                                      compressed.size())) == 0;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // The provider takes numbers from the end, so a seed is a member or frame with a tail.
  FuzzedDataProvider input(data, size);
  const auto codec = static_cast<SpanCodec>(input.ConsumeIntegralInRange<int>(0, 2));
  const uint64_t needed = input.ConsumeIntegralInRange<uint64_t>(0, kMostBytes);
  const auto compressed = input.ConsumeRemainingBytes<uint8_t>();

  static SpanDecoder& used = *new SpanDecoder;
  static DecodedBuffer& kept = *new DecodedBuffer;
  const strata::Status status = used.Decode(codec, compressed, needed, kMostBytes, kept);
  if (IsWhole(codec, compressed)) {
    SpanDecoder fresh;
    DecodedBuffer buffer;
    // The code alone: libzstd words an error by what it met first.
    STRATA_CHECK(fresh.Decode(codec, compressed, needed, kMostBytes, buffer).code() ==
                 status.code());
    STRATA_CHECK(std::equal(kept.bytes().begin(), kept.bytes().end(), buffer.bytes().begin(),
                            buffer.bytes().end()));
  }
  if (!status.ok()) {
    STRATA_CHECK(status.code() == strata::StatusCode::kDataLoss && kept.bytes().empty());
    return 0;
  }
  STRATA_CHECK(kept.bytes().size() >= needed && kept.bytes().size() <= kMostBytes);
  return 0;
}
