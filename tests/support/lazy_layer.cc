// SPDX-License-Identifier: Apache-2.0
#include "tests/support/lazy_layer.h"

#include <libdeflate.h>
#include <zstd.h>

#include <cstddef>
#include <initializer_list>
#include <memory>

#include "snapshotters/base/check.h"

namespace strata::testing {
namespace {

std::string LittleEndian(uint64_t value, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) {
    text += static_cast<char>(value >> (8 * i) & 0xff);
  }
  return text;
}

std::string Digits(uint64_t value, unsigned base_bits, size_t digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text(digits, '0');
  for (size_t i = digits; i-- > 0; value >>= base_bits) {
    text[i] = kDigits[value & ((1U << base_bits) - 1)];
  }
  return text;
}

std::string GzipFooterOf(std::string_view extra) {
  return std::string("\x1f\x8b\x08\x04\0\0\0\0\0\xff", 10) + LittleEndian(extra.size(), 2) +
         std::string(extra) + std::string("\x01\0\0\xff\xff", 5) + std::string(8, '\0');
}

std::string Subfield(std::string_view content) {
  return "SG" + LittleEndian(content.size(), 2) + std::string(content);
}

std::string Numbers(std::initializer_list<uint64_t> values) {
  std::string text;
  for (const uint64_t value : values) {
    text += LittleEndian(value, 8);
  }
  return text;
}

}  // namespace

std::vector<uint8_t> FromHex(std::string_view digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::vector<uint8_t> bytes;
  bool high = true;
  for (const char digit : digits) {
    if (digit == ' ') {
      continue;
    }
    const auto value = static_cast<uint8_t>(kDigits.find(digit));
    if (high) {
      bytes.push_back(static_cast<uint8_t>(value << 4));
    } else {
      bytes.back() = static_cast<uint8_t>(bytes.back() | value);
    }
    high = !high;
  }
  return bytes;
}

std::vector<uint8_t> ToBytes(std::string_view text) {
  return {text.begin(), text.end()};
}

std::string GzipMember(std::string_view content) {
  constexpr int kLevel = 6;
  const std::unique_ptr<libdeflate_compressor, decltype(&libdeflate_free_compressor)> compressor(
      libdeflate_alloc_compressor(kLevel), libdeflate_free_compressor);
  std::string out(libdeflate_gzip_compress_bound(compressor.get(), content.size()), '\0');
  out.resize(libdeflate_gzip_compress(compressor.get(), content.data(), content.size(), out.data(),
                                      out.size()));
  return out;
}

std::string ZstdFrame(std::string_view content) {
  constexpr int kLevel = 3;
  std::string out(ZSTD_compressBound(content.size()), '\0');
  const size_t bytes =
      ZSTD_compress(out.data(), out.size(), content.data(), content.size(), kLevel);
  STRATA_CHECK(ZSTD_isError(bytes) == 0);
  out.resize(bytes);
  return out;
}

std::string ZstdSkippableFrame(std::string_view content) {
  return LittleEndian(0x184D2A50, 4) + LittleEndian(content.size(), 4) + std::string(content);
}

std::string TarFile(std::string_view name, std::string_view content, char type) {
  constexpr size_t kBlock = 512;
  std::string header(kBlock, '\0');
  header.replace(0, name.size(), name);
  header.replace(100, 7, "0000644");
  header.replace(124, 11, Digits(content.size(), 3, 11));
  header.replace(148, 8, "        ");
  header[156] = type;
  header.replace(257, 5, "ustar");
  header.replace(263, 2, "00");
  uint64_t sum = 0;
  for (const char c : header) {
    sum += static_cast<uint8_t>(c);
  }
  header.replace(148, 6, Digits(sum, 3, 6));
  header[154] = '\0';
  return header + std::string(content) +
         std::string((kBlock - content.size() % kBlock) % kBlock, '\0');
}

std::string EstargzFooter(uint64_t toc_offset) {
  return GzipFooterOf(Subfield(Digits(toc_offset, 4, 16) + "STARGZ"));
}

std::string LegacyStargzFooter(uint64_t toc_offset) {
  return GzipFooterOf(Digits(toc_offset, 4, 16) + "STARGZ");
}

std::string ExternalTocFooter() {
  return GzipFooterOf(Subfield("STARGZEXTERNALTOC"));
}

std::string ZstdChunkedFooter(uint64_t offset, uint64_t compressed, uint64_t bytes, uint64_t kind) {
  return ZstdSkippableFrame(Numbers({offset, compressed, bytes, kind}) + "GnUlInUx");
}

std::string ZstdContainersFooter(uint64_t offset, uint64_t compressed, uint64_t bytes,
                                 uint64_t split_offset, uint64_t split_compressed,
                                 uint64_t split_bytes) {
  return ZstdSkippableFrame(
      Numbers({offset, compressed, bytes, 1, split_offset, split_compressed, split_bytes}) +
      "GNUlInUx");
}

}  // namespace strata::testing
