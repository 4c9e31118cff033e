// SPDX-License-Identifier: Apache-2.0
//
// CRC-32C (Castagnoli), by the CPU's instruction where it has one. Stateless, safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace strata {

// The checksum of `bytes` as RFC 3720 has it ("123456789" gives 0xe3069283). `before` is the result
// for the bytes that precede them. EROFS stores the complement: the kernel leaves the last
// inversion out.
uint32_t Crc32c(std::span<const uint8_t> bytes, uint32_t before = 0);

// The same without that instruction.
uint32_t Crc32cSoftware(std::span<const uint8_t> bytes, uint32_t before = 0);

}  // namespace strata
