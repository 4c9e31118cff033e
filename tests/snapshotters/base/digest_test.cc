// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/digest.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace strata {
namespace {

std::string Hex(const Sha256Digest& digest) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

// The examples of FIPS 180-2, and the length where the padding takes a block of its own.
TEST(DigestTest, AgreesWithTheStandard) {
  EXPECT_EQ(Hex(Sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Hex(Sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Hex(Sha256(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(DigestTest, TakesNoBytes) {
  constexpr std::string_view kOfNothing =
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  EXPECT_EQ(Hex(Sha256("")), kOfNothing);
  EXPECT_EQ(Hex(Sha256({})), kOfNothing);
}

TEST(DigestTest, NulIsAByte) {
  EXPECT_EQ(Hex(Sha256(std::string_view("\0", 1))),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
}

}  // namespace
}  // namespace strata
