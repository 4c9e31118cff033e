// SPDX-License-Identifier: Apache-2.0
//
// Both ways of CRC-32C against the standard and each other.
#include "snapshotters/lazy/crc32c.h"

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

namespace strata {
namespace {

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(Crc32cTest, SoftwareGivesTheCheckValueOfTheStandard) {
  const std::string digits = "123456789";
  EXPECT_EQ(Crc32cSoftware(Bytes(digits)), 0xe3069283U);
}

TEST(Crc32cTest, BothWaysAgreeAtEveryLengthAndAlignment) {
  std::vector<uint8_t> bytes(300);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<uint8_t>(i * 131 + i / 7);
  }
  for (size_t begin = 0; begin < 9; ++begin) {
    for (size_t length = 0; begin + length <= bytes.size(); ++length) {
      const std::span<const uint8_t> part(bytes.data() + begin, length);
      ASSERT_EQ(Crc32c(part), Crc32cSoftware(part)) << begin << "+" << length;
    }
  }
}

TEST(Crc32cTest, GoesOnFromThePartBefore) {
  const std::string text = "goes on from the part before, wherever it is cut";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const std::span<const uint8_t> whole = Bytes(text);
    ASSERT_EQ(Crc32c(whole.subspan(cut), Crc32cSoftware(whole.first(cut))), Crc32c(whole)) << cut;
  }
}

}  // namespace
}  // namespace strata
