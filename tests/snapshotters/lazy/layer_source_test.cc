// SPDX-License-Identifier: Apache-2.0
//
// Where a layer comes from, as JSON and back.
#include "snapshotters/lazy/layer_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "snapshotters/lazy/crc32c.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

LayerSource Full() {
  return {.reference = "registry.example/a/b:\"1\"",
          .digest = "sha256:aa",
          .blob_bytes = ~uint64_t{0},
          .urls = {"https://one", "https://two"},
          .format = LayerFormat::kZstdChunkedContainers,
          .toc_digest = "sha256:bb",
          .toc_compressed_digest = "sha256:cc",
          .user_xattr = true,
          .verified = false,
          .prefetch_end = uint64_t{1} << 40,
          .no_prefetch = true,
          .inodes = 12};
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(LayerSourceTest, ComesBack) {
  for (const LayerSource& source : {Full(), LayerSource()}) {
    STRATA_ASSERT_OK_AND_ASSIGN(const LayerSource back, ParseLayerSource(ShowLayerSource(source)));
    EXPECT_EQ(back, source);
  }
}

TEST(LayerSourceTest, KeepsEveryFormat) {
  for (const LayerFormat format :
       {LayerFormat::kEstargz, LayerFormat::kLegacyStargz, LayerFormat::kExternalToc,
        LayerFormat::kZstdChunked, LayerFormat::kZstdChunkedContainers}) {
    STRATA_ASSERT_OK_AND_ASSIGN(const LayerSource back,
                                ParseLayerSource(ShowLayerSource({.format = format})));
    EXPECT_EQ(back.format, format);
  }
}

TEST(LayerSourceTest, ReplacesWhatIsNoUtf8) {
  STRATA_ASSERT_OK_AND_ASSIGN(const LayerSource back,
                              ParseLayerSource(ShowLayerSource({.reference = "a\xff"})));
  EXPECT_EQ(back.reference, "a\xef\xbf\xbd");
}

TEST(LayerSourceTest, NeverTakesAChangedByteForTheTruth) {
  const std::string good = ShowLayerSource(Full());
  for (size_t at = 0; at < good.size(); ++at) {
    for (const int bit : {0x01, 0x04, 0x20}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ bit);
      const auto source = ParseLayerSource(bad);
      // A space may have become another one.
      ASSERT_TRUE(source.ok() ? *source == Full() : source.status().code() == StatusCode::kDataLoss)
          << at;
    }
  }
}

TEST(LayerSourceTest, RefusesWhatEndsTooEarly) {
  const std::string good = ShowLayerSource(Full());
  for (size_t length = 0; length + 2 < good.size(); ++length) {
    ASSERT_THAT(ParseLayerSource(good.substr(0, length)), StatusIs(StatusCode::kDataLoss));
  }
}

TEST(LayerSourceTest, NamesAVersionThatItDoesNotKnow) {
  EXPECT_THAT(
      ParseLayerSource(Replaced(ShowLayerSource(Full()), "\"version\": 1", "\"version\": 2")),
      StatusIs(StatusCode::kDataLoss, HasSubstr("version 2 is not known")));
}

TEST(LayerSourceTest, NamesTheChecksumThatDoesNotHold) {
  EXPECT_THAT(ParseLayerSource(Replaced(ShowLayerSource(Full()), "sha256:aa", "sha256:ab")),
              StatusIs(StatusCode::kDataLoss, HasSubstr("'crc32c'")));
}

// As a writer with other ideas would have made it: the checksum holds.
std::string Sealed(nlohmann::json json) {
  json.erase("version");
  json.erase("crc32c");
  const std::string text = json.dump();
  const uint32_t sum = Crc32c({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  char digits[9];
  (void)std::snprintf(digits, sizeof(digits), "%08x", sum);
  json["crc32c"] = digits;
  json["version"] = 1;
  return json.dump();
}

TEST(LayerSourceTest, NamesTheFieldThatIsWrongOrMissing) {
  const nlohmann::json good = nlohmann::json::parse(ShowLayerSource(Full()));
  ASSERT_THAT(ParseLayerSource(Sealed(good)), IsOk());
  for (const char* field : {"reference", "digest", "blob_bytes", "urls", "format", "toc_digest",
                            "user_xattr", "verified", "prefetch_end", "no_prefetch", "inodes"}) {
    nlohmann::json bad = good;
    bad[field] = -1;
    EXPECT_THAT(ParseLayerSource(Sealed(bad)),
                StatusIs(StatusCode::kDataLoss, HasSubstr("'" + std::string(field) + "'")));
    bad.erase(field);
    EXPECT_THAT(ParseLayerSource(Sealed(bad)),
                StatusIs(StatusCode::kDataLoss, HasSubstr("'" + std::string(field) + "'")));
  }
}

TEST(LayerSourceTest, NamesAFieldThatItDoesNotKnow) {
  nlohmann::json more = nlohmann::json::parse(ShowLayerSource(Full()));
  more["password"] = "x";
  EXPECT_THAT(ParseLayerSource(Sealed(more)),
              StatusIs(StatusCode::kDataLoss, HasSubstr("'password'")));
}

TEST(LayerSourceTest, RefusesWhatIsNoObject) {
  for (const char* text : {"", "null", "[]", "3", "{}", "{\"version\":1}"}) {
    EXPECT_THAT(ParseLayerSource(text), StatusIs(StatusCode::kDataLoss)) << text;
  }
}

}  // namespace
}  // namespace strata
