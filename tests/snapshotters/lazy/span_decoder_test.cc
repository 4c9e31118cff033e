// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/span_decoder.h"

#include <string>
#include <string_view>

#include "tests/support/lazy_layer.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::GzipMember;
using testing::IsOk;
using testing::StatusIs;
using testing::ToBytes;
using testing::ZstdFrame;
using testing::ZstdSkippableFrame;

constexpr uint64_t kMost = 1 << 20;

StatusOr<std::string> Decode(SpanCodec codec, std::string_view compressed, uint64_t needed,
                             uint64_t most = kMost) {
  SpanDecoder decoder;
  DecodedBuffer buffer;
  const Status status = decoder.Decode(codec, ToBytes(compressed), needed, most, buffer);
  if (!status.ok()) {
    EXPECT_TRUE(buffer.bytes().empty());
    return status;
  }
  return std::string(buffer.bytes().begin(), buffer.bytes().end());
}

std::string Incompressible(size_t bytes) {
  std::string text;
  uint32_t state = 1;
  for (size_t i = 0; i < bytes; ++i) {
    state = state * 1664525 + 1013904223;
    text += static_cast<char>(state >> 24);
  }
  return text;
}

TEST(SpanDecoderTest, DecodesOneGzipMember) {
  const std::string content = Incompressible(100'000);
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string decoded,
                              Decode(SpanCodec::kGzip, GzipMember(content), content.size()));
  EXPECT_EQ(decoded, content);
}

TEST(SpanDecoderTest, DecodesSeveralGzipMembers) {
  const std::string first = Incompressible(50'000);
  const std::string second(70'000, 'x');
  STRATA_ASSERT_OK_AND_ASSIGN(
      const std::string decoded,
      Decode(SpanCodec::kGzip, GzipMember(first) + GzipMember(second), 120'000));
  EXPECT_EQ(decoded, first + second);
}

TEST(SpanDecoderTest, LeavesGzipMembersThatAreNotNeeded) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const std::string decoded,
      Decode(SpanCodec::kGzip, GzipMember("wanted") + GzipMember("other"), 6));
  EXPECT_EQ(decoded, "wanted");
}

TEST(SpanDecoderTest, DecodesAGzipMemberThatIsLongerThanNeeded) {
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string decoded,
                              Decode(SpanCodec::kGzip, GzipMember(std::string(9000, 'h')), 5));
  EXPECT_EQ(decoded.substr(0, 5), "hhhhh");
}

TEST(SpanDecoderTest, RefusesForeignBytesBehindGzip) {
  EXPECT_THAT(Decode(SpanCodec::kGzip, GzipMember("wanted") + "garbage", 6),
              StatusIs(StatusCode::kDataLoss));
}

TEST(SpanDecoderTest, BoundsWhatGzipDecodesTo) {
  const std::string bomb = GzipMember(std::string(kMost + 1, 'b'));
  EXPECT_THAT(Decode(SpanCodec::kGzip, bomb, 10), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(Decode(SpanCodec::kGzip, bomb, 10, kMost + 1), IsOk());
}

TEST(SpanDecoderTest, RefusesEveryShortenedGzip) {
  const std::string good = GzipMember(Incompressible(300));
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    EXPECT_THAT(Decode(SpanCodec::kGzip, good.substr(0, bytes), 300),
                StatusIs(StatusCode::kDataLoss))
        << bytes;
  }
}

TEST(SpanDecoderTest, RefusesGzipThatIsTooShort) {
  EXPECT_THAT(Decode(SpanCodec::kGzip, GzipMember("short"), 6), StatusIs(StatusCode::kDataLoss));
}

TEST(SpanDecoderTest, DecodesZstdFramesAndPassesSkippableOnes) {
  const std::string first = Incompressible(50'000);
  STRATA_ASSERT_OK_AND_ASSIGN(
      const std::string decoded,
      Decode(SpanCodec::kZstd, ZstdFrame(first) + ZstdSkippableFrame("skip") + ZstdFrame("second"),
             50'006));
  EXPECT_EQ(decoded, first + "second");
}

TEST(SpanDecoderTest, StopsZstdWhereNoMoreIsNeeded) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const std::string decoded,
      Decode(SpanCodec::kZstd, ZstdFrame(std::string(1 << 24, 'z')), 100'000));
  EXPECT_EQ(decoded, std::string(100'000, 'z'));
}

TEST(SpanDecoderTest, DecodesMoreZstdThanTheFirstRoom) {
  const std::string content = Incompressible(3'000'000);
  STRATA_ASSERT_OK_AND_ASSIGN(
      const std::string decoded,
      Decode(SpanCodec::kZstd, ZstdFrame(content), content.size(), content.size()));
  EXPECT_EQ(decoded, content);
}

TEST(SpanDecoderTest, RefusesEveryShortenedZstd) {
  const std::string good = ZstdFrame(Incompressible(300));
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    EXPECT_THAT(Decode(SpanCodec::kZstd, good.substr(0, bytes), 300),
                StatusIs(StatusCode::kDataLoss))
        << bytes;
  }
}

TEST(SpanDecoderTest, RefusesMoreThanTheLimitUnseen) {
  for (const SpanCodec codec : {SpanCodec::kNone, SpanCodec::kGzip, SpanCodec::kZstd}) {
    EXPECT_THAT(Decode(codec, "x", kMost + 1), StatusIs(StatusCode::kDataLoss));
  }
}

TEST(SpanDecoderTest, TakesBytesThatAreNotCompressed) {
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string decoded, Decode(SpanCodec::kNone, "abcdef", 4));
  EXPECT_EQ(decoded, "abcd");
  EXPECT_THAT(Decode(SpanCodec::kNone, "abc", 4), StatusIs(StatusCode::kDataLoss));
}

TEST(SpanDecoderTest, IsAsGoodAsNewAfterAFailure) {
  SpanDecoder decoder;
  DecodedBuffer buffer;
  for (const bool zstd : {false, true}) {
    const SpanCodec codec = zstd ? SpanCodec::kZstd : SpanCodec::kGzip;
    const std::string good = zstd ? ZstdFrame("good") : GzipMember("good");
    EXPECT_THAT(decoder.Decode(codec, ToBytes(good.substr(0, good.size() - 3)), 4, kMost, buffer),
                StatusIs(StatusCode::kDataLoss));
    EXPECT_THAT(decoder.Decode(codec, ToBytes(good), 4, kMost, buffer), IsOk());
    EXPECT_EQ(std::string(buffer.bytes().begin(), buffer.bytes().end()), "good");
  }
}

}  // namespace
}  // namespace strata
