// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/footer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/lazy_layer.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::FromHex;
using testing::StatusIs;
using testing::ToBytes;

constexpr uint64_t kBlobBytes = 0x2000;

// The footer at the end of a blob of kBlobBytes whose other bytes are not zero.
StatusOr<Footer> ParseAtEnd(std::vector<uint8_t> footer) {
  std::vector<uint8_t> tail(kFooterTailBytes, 0xee);
  std::copy(footer.begin(), footer.end(), tail.end() - static_cast<std::ptrdiff_t>(footer.size()));
  return ParseFooter(tail, kBlobBytes);
}

StatusOr<Footer> ParseAtEnd(const std::string& footer) {
  return ParseAtEnd(ToBytes(footer));
}

TEST(FooterTest, ReadsEstargz) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Footer footer,
                              ParseAtEnd(FromHex("1f8b0804 00000000 00ff 1a00 5347 1600"
                                                 "30303030303030303030303031323334 53544152475a"
                                                 "01 0000 ffff 00000000 00000000")));
  EXPECT_EQ(footer, (Footer{.format = LayerFormat::kEstargz,
                            .toc = {.offset = 0x1234, .bytes = kBlobBytes - 51 - 0x1234},
                            .payload_end = 0x1234,
                            .footer_bytes = 51}));
}

TEST(FooterTest, ReadsLegacyStargz) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Footer footer,
                              ParseAtEnd(FromHex("1f8b0804 00000000 00ff 1600"
                                                 "30303030303030303030303031323334 53544152475a"
                                                 "01 0000 ffff 00000000 00000000")));
  EXPECT_EQ(footer, (Footer{.format = LayerFormat::kLegacyStargz,
                            .toc = {.offset = 0x1234, .bytes = kBlobBytes - 47 - 0x1234},
                            .payload_end = 0x1234,
                            .footer_bytes = 47}));
}

TEST(FooterTest, ReadsExternalToc) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Footer footer,
                              ParseAtEnd(FromHex("1f8b0804 00000000 00ff 1500 5347 1100"
                                                 "53544152475a45585445524e414c544f43"
                                                 "01 0000 ffff 00000000 00000000")));
  EXPECT_EQ(footer, (Footer{.format = LayerFormat::kExternalToc,
                            .toc = {.offset = kBlobBytes - 46, .bytes = 0},
                            .payload_end = kBlobBytes - 46,
                            .footer_bytes = 46}));
}

TEST(FooterTest, ReadsZstdChunked) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const Footer footer,
      ParseAtEnd(FromHex("502a4d18 28000000 3412000000000000 5600000000000000 7800000000000000"
                         "0100000000000000 476e556c496e5578")));
  EXPECT_EQ(footer, (Footer{.format = LayerFormat::kZstdChunked,
                            .toc = {.offset = 0x1234, .bytes = 0x56},
                            .toc_bytes = 0x78,
                            .payload_end = 0x1234 - 8,
                            .footer_bytes = 48}));
}

TEST(FooterTest, ReadsZstdChunkedOfContainersStorage) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const Footer footer,
      ParseAtEnd(FromHex("502a4d18 40000000 3412000000000000 5600000000000000 7800000000000000"
                         "0100000000000000 9212000000000000 0900000000000000 0a00000000000000"
                         "474e556c496e5578")));
  EXPECT_EQ(footer, (Footer{.format = LayerFormat::kZstdChunkedContainers,
                            .toc = {.offset = 0x1234, .bytes = 0x56},
                            .toc_bytes = 0x78,
                            .payload_end = 0x1234 - 8,
                            .footer_bytes = 72,
                            .tar_split = {.offset = 0x1292, .bytes = 9}}));
}

TEST(FooterTest, DoesNotCareForTimeAndSystemOfTheGzipWriter) {
  std::string footer = testing::EstargzFooter(0x1234);
  for (size_t i = 4; i < 10; ++i) {
    footer[i] = 'x';
  }
  EXPECT_THAT(ParseAtEnd(footer), testing::IsOk());
}

struct FooterCase {
  std::string name;
  std::string footer;
  StatusCode code;
};

class BadFooterTest : public ::testing::TestWithParam<FooterCase> {};

TEST_P(BadFooterTest, IsRefused) {
  EXPECT_THAT(ParseAtEnd(GetParam().footer), StatusIs(GetParam().code));
}

std::string Replaced(std::string text, size_t at, std::string_view with) {
  return text.replace(at, with.size(), with);
}

using testing::EstargzFooter;
using testing::LegacyStargzFooter;
using testing::ZstdChunkedFooter;
using testing::ZstdContainersFooter;

constexpr StatusCode kNotLazy = StatusCode::kFailedPrecondition;
constexpr StatusCode kBroken = StatusCode::kDataLoss;
constexpr uint64_t kHuge = ~uint64_t{0};

INSTANTIATE_TEST_SUITE_P(
    Hostile, BadFooterTest,
    ::testing::ValuesIn(std::vector<FooterCase>{
        {"no_footer", "", kNotLazy},
        {"other_magic", Replaced(EstargzFooter(1), 33, "X"), kNotLazy},
        {"other_subfield", Replaced(EstargzFooter(1), 12, "XG"), kNotLazy},
        {"other_subfield_length", Replaced(EstargzFooter(1), 14, "\x15"), kNotLazy},
        {"other_extra_length", Replaced(EstargzFooter(1), 10, "\x1b"), kNotLazy},
        {"other_gzip_flags", Replaced(EstargzFooter(1), 3, "\x05"), kNotLazy},
        {"not_hex", Replaced(EstargzFooter(1), 16, "000000000000000g"), kBroken},
        {"legacy_not_hex", Replaced(LegacyStargzFooter(1), 12, "-000000000000001"), kBroken},
        {"toc_at_footer", EstargzFooter(kBlobBytes - 51), kBroken},
        {"toc_huge", EstargzFooter(kHuge), kBroken},
        {"legacy_toc_at_footer", LegacyStargzFooter(kBlobBytes - 47), kBroken},
        {"zstd_no_frame", Replaced(ZstdChunkedFooter(16, 8, 8), 0, "X"), kBroken},
        {"zstd_frame_length", Replaced(ZstdChunkedFooter(16, 8, 8), 4, "\x29"), kBroken},
        {"zstd_kind", ZstdChunkedFooter(16, 8, 8, 2), kBroken},
        {"zstd_before_blob", ZstdChunkedFooter(7, 8, 8), kBroken},
        {"zstd_too_long", ZstdChunkedFooter(16, kBlobBytes - 48 - 15, 8), kBroken},
        {"zstd_wraps", ZstdChunkedFooter(16, kHuge - 8, 8), kBroken},
        {"zstd_offset_huge", ZstdChunkedFooter(kHuge, 8, 8), kBroken},
        {"zstd_empty", ZstdChunkedFooter(16, 0, 8), kBroken},
        {"zstd_decodes_to_nothing", ZstdChunkedFooter(16, 8, 0), kBroken},
        {"tar_split_behind_blob", ZstdContainersFooter(16, 8, 8, kBlobBytes, 8, 8), kBroken},
        {"tar_split_wraps", ZstdContainersFooter(16, 8, 8, 32, kHuge, 8), kBroken},
        {"magic_of_the_other_dialect", Replaced(ZstdChunkedFooter(16, 8, 8), 40, "GNUlInUx"),
         kBroken},
    }),
    [](const auto& test_info) { return test_info.param.name; });

TEST(FooterTest, TakesTheLargestOffsetThatFits) {
  EXPECT_THAT(ParseAtEnd(EstargzFooter(kBlobBytes - 52)), testing::IsOk());
  EXPECT_THAT(ParseAtEnd(ZstdChunkedFooter(16, kBlobBytes - 48 - 16, 8)), testing::IsOk());
}

TEST(FooterTest, FindsNoneInBlobsOfAnyShortLength) {
  for (size_t bytes = 0; bytes < kFooterTailBytes; ++bytes) {
    EXPECT_THAT(ParseFooter(std::vector<uint8_t>(bytes, 0x1f), bytes), StatusIs(kNotLazy)) << bytes;
  }
}

TEST(FooterTest, RefusesTooLittleOfTheBlob) {
  EXPECT_THAT(ParseFooter(std::vector<uint8_t>(51), kBlobBytes),
              StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace strata
