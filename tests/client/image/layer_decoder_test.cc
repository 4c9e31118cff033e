// SPDX-License-Identifier: Apache-2.0
#include "client/image/layer_decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "tests/support/gzip.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::Gzip;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

// Text that compresses, and does not repeat itself too soon.
std::string Text(size_t size) {
  std::string text;
  uint32_t state = 1;
  while (text.size() < size) {
    state = state * 1664525 + 1013904223;
    text += "word" + std::to_string(state >> 20) + ' ';
  }
  text.resize(size);
  return text;
}

// All that comes out when input comes in pieces of `in` bytes, and is asked for by `out`.
StatusOr<std::string> Decode(const std::string& bytes, size_t in, size_t out) {
  size_t at = 0;
  STRATA_ASSIGN_OR_RETURN(const auto decoder,
                          OpenLayerDecoder([&](char* buffer, size_t size) -> StatusOr<size_t> {
                            const size_t count = std::min({size, in, bytes.size() - at});
                            std::memcpy(buffer, bytes.data() + at, count);
                            at += count;
                            return count;
                          }));
  std::string all;
  std::string buffer(out, '\0');
  while (true) {
    STRATA_ASSIGN_OR_RETURN(const size_t count, decoder->Read(buffer.data(), out));
    if (count == 0) {
      return all;
    }
    all.append(buffer, 0, count);
  }
}

TEST(LayerDecoderTest, GzipMembersOfAnySizeInPiecesOfAnySize) {
  const std::string text = Text(300'000);
  std::string members;
  for (size_t at = 0; at < text.size(); at += 70'001) {
    members += Gzip(text.substr(at, 70'001), at == 0 ? 0 : 6);
    members += Gzip("", 6);  // as an eStargz footer is
  }
  for (const size_t in : {1U, 7U, 4096U, 1U << 20}) {
    for (const size_t out : {1U, 1000U, 1U << 18}) {
      const auto decoded = Decode(members, in, out);
      ASSERT_THAT(decoded, IsOk()) << in << " " << out;
      EXPECT_TRUE(*decoded == text) << in << " " << out;
    }
  }
}

TEST(LayerDecoderTest, GzipHeadersWithEveryField) {
  gz_header header{};
  std::string name = "a name";
  std::string comment = "a comment";
  std::string extra = "SG and so on";
  header.name = reinterpret_cast<Bytef*>(name.data());
  header.comment = reinterpret_cast<Bytef*>(comment.data());
  header.extra = reinterpret_cast<Bytef*>(extra.data());
  header.extra_len = static_cast<uInt>(extra.size());
  header.hcrc = 1;
  const std::string text = Text(1000);
  const std::string both = Gzip(text, 9, &header) + Gzip(text, 1);
  for (const size_t in : {1U << 20, 7U, 1U}) {
    const auto decoded = Decode(both, in, 100);
    ASSERT_THAT(decoded, IsOk()) << in;
    EXPECT_TRUE(*decoded == text + text) << in;
  }
}

TEST(LayerDecoderTest, GzipThatIsCutOffIsDataLossWhereverItIs) {
  const std::string member = Gzip(Text(2000), 6);
  for (size_t size = 3; size < member.size(); ++size) {
    for (const size_t in : {5U, 1U << 20}) {
      EXPECT_THAT(Decode(member.substr(0, size), in, 300).status(),
                  StatusIs(StatusCode::kDataLoss, HasSubstr("gzip")))
          << size;
    }
  }
}

TEST(LayerDecoderTest, AWrongByteOfATrailerIsDataLoss) {
  const std::string member = Gzip(Text(2000), 6);
  for (size_t back = 1; back <= 8; ++back) {
    std::string damaged = member;
    damaged[damaged.size() - back] = static_cast<char>(damaged[damaged.size() - back] ^ 1);
    EXPECT_THAT(Decode(damaged + member, 1 << 20, 1 << 20).status(),
                StatusIs(StatusCode::kDataLoss, HasSubstr("its checksum or length is wrong")))
        << back;
  }
}

TEST(LayerDecoderTest, WhatFollowsAMemberHasToBeOne) {
  EXPECT_THAT(Decode(Gzip("a", 6) + "more of something else", 1 << 20, 100).status(),
              StatusIs(StatusCode::kDataLoss, HasSubstr("no gzip header")));
}

TEST(LayerDecoderTest, DamagedDataNeverEndsWell) {
  const std::string text = Text(20'000);
  const std::string member = Gzip(text, 6);
  for (size_t at = 10; at < member.size(); at += 13) {
    std::string damaged = member;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
    EXPECT_THAT(Decode(damaged, 1000, 1000).status(), StatusIs(StatusCode::kDataLoss)) << at;
  }
}

}  // namespace
}  // namespace strata
