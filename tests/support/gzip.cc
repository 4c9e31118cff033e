// SPDX-License-Identifier: Apache-2.0
#include "tests/support/gzip.h"

#include <gtest/gtest.h>

namespace strata::testing {

std::string Gzip(std::string_view bytes, int level, gz_header* header) {
  constexpr size_t kHeaderBytes = 512;
  std::string out(::compressBound(bytes.size()) + kHeaderBytes, '\0');
  z_stream stream{};
  // 16: as gzip (zlib.h, deflateInit2).
  EXPECT_EQ(::deflateInit2(&stream, level, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY),
            Z_OK);
  if (header != nullptr) {
    EXPECT_EQ(::deflateSetHeader(&stream, header), Z_OK);
  }
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  (void)::deflateEnd(&stream);
  return out;
}

}  // namespace strata::testing
