// SPDX-License-Identifier: Apache-2.0
//
// Pieces of lazy layers, good ones and odd ones, for tests. Stateless.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace strata::testing {

// Bytes of hexadecimal digits; spaces are passed over.
std::vector<uint8_t> FromHex(std::string_view digits);
std::vector<uint8_t> ToBytes(std::string_view text);

std::string GzipMember(std::string_view content);
std::string ZstdFrame(std::string_view content);
std::string ZstdSkippableFrame(std::string_view content);

// A ustar header of a regular file and its content, padded.
std::string TarFile(std::string_view name, std::string_view content, char type = '0');

std::string EstargzFooter(uint64_t toc_offset);
std::string LegacyStargzFooter(uint64_t toc_offset);
std::string ExternalTocFooter();
// With the header of the frame they are in.
std::string ZstdChunkedFooter(uint64_t offset, uint64_t compressed, uint64_t bytes,
                              uint64_t kind = 1);
std::string ZstdContainersFooter(uint64_t offset, uint64_t compressed, uint64_t bytes,
                                 uint64_t split_offset, uint64_t split_compressed,
                                 uint64_t split_bytes);

}  // namespace strata::testing
