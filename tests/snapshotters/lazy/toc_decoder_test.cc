// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/toc_decoder.h"

#include <string>
#include <string_view>

#include "snapshotters/base/digest.h"
#include "tests/support/lazy_layer.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::GzipMember;
using testing::IsOk;
using testing::StatusIs;
using testing::TarFile;
using testing::ToBytes;
using testing::ZstdFrame;

constexpr std::string_view kJson = "{\"version\":1,\"entries\":[]}\n";
const std::string kTarEnd(1024, '\0');

Footer GzipFooter() {
  return {.format = LayerFormat::kEstargz};
}

Footer ZstdFooter() {
  return {.format = LayerFormat::kZstdChunkedContainers,
          .toc = {.offset = 100, .bytes = ZstdFrame(kJson).size()},
          .toc_bytes = kJson.size()};
}

std::string GzipToc(std::string_view tar_prefix = "") {
  return GzipMember(std::string(tar_prefix) + TarFile("stargz.index.json", kJson) + kTarEnd);
}

StatusOr<std::string> Decode(const Footer& footer, std::string_view compressed, const TocPin& pin,
                             const VerifyPolicy& policy = {}, const TocLimits& limits = {}) {
  return DecodeToc(footer, ToBytes(compressed), pin, policy, limits);
}

TEST(TocDecoderTest, DecodesGzipHeldToItsDigest) {
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string json,
                              Decode(GzipFooter(), GzipToc(), {.toc_digest = Sha256(kJson)}));
  EXPECT_EQ(json, kJson);
  EXPECT_GE(json.capacity() - json.size(), kTocPadding);
}

TEST(TocDecoderTest, DecodesZstdHeldToEitherDigest) {
  const std::string compressed = ZstdFrame(kJson);
  for (const TocPin& pin :
       {TocPin{.toc_digest = Sha256(kJson)}, TocPin{.manifest_checksum = Sha256(compressed)}}) {
    STRATA_ASSERT_OK_AND_ASSIGN(const std::string json, Decode(ZstdFooter(), compressed, pin));
    EXPECT_EQ(json, kJson);
  }
}

TEST(TocDecoderTest, RefusesWhatIsNotPinnedUnlessAllowed) {
  EXPECT_THAT(Decode(GzipFooter(), GzipToc(), {}), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(Decode(GzipFooter(), GzipToc(), {}, {.allow_unpinned = true}), IsOk());
  EXPECT_THAT(Decode(GzipFooter(), GzipToc(), {}, {.disabled = true}), IsOk());
}

TEST(TocDecoderTest, DoesNotTakeAZstdChecksumForAPinOfGzip) {
  EXPECT_THAT(Decode(GzipFooter(), GzipToc(), {.manifest_checksum = Sha256(GzipToc())}),
              StatusIs(StatusCode::kFailedPrecondition));
}

TEST(TocDecoderTest, HoldsToAPinEvenWhereNoneIsWanted) {
  const TocPin wrong = {.toc_digest = Sha256("other")};
  EXPECT_THAT(Decode(GzipFooter(), GzipToc(), wrong, {.allow_unpinned = true}),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(Decode(ZstdFooter(), ZstdFrame(kJson), wrong), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(Decode(GzipFooter(), GzipToc(), wrong, {.disabled = true}), IsOk());
}

TEST(TocDecoderTest, HoldsZstdToAllPinsAtOnce) {
  const std::string compressed = ZstdFrame(kJson);
  const TocPin good = {
      .toc_digest = Sha256(kJson),
      .manifest_checksum = Sha256(compressed),
      .manifest_position = ManifestPosition{.range = ZstdFooter().toc, .bytes = kJson.size()}};
  EXPECT_THAT(Decode(ZstdFooter(), compressed, good), IsOk());
  TocPin bad = good;
  bad.manifest_checksum = Sha256("other");
  EXPECT_THAT(Decode(ZstdFooter(), compressed, bad), StatusIs(StatusCode::kDataLoss));
  bad = good;
  bad.manifest_position->range.offset += 1;
  EXPECT_THAT(Decode(ZstdFooter(), compressed, bad), StatusIs(StatusCode::kDataLoss));
}

TEST(TocDecoderTest, PassesExtendedHeaders) {
  EXPECT_THAT(Decode(GzipFooter(), GzipToc(TarFile("pax", "11 mtime=1\n", 'x')),
                     {.toc_digest = Sha256(kJson)}),
              IsOk());
}

TEST(TocDecoderTest, RefusesOtherArchives) {
  std::string no_checksum = TarFile("stargz.index.json", kJson);
  no_checksum[0] = 'S';
  std::string too_large = TarFile("stargz.index.json", kJson).substr(0, 512);
  for (const std::string& tar :
       {std::string("not tar"), kTarEnd, std::string(), TarFile("other.json", kJson), no_checksum,
        too_large, TarFile("stargz.index.json", kJson, '2'), TarFile("pax", "x", 'x')}) {
    EXPECT_THAT(Decode(GzipFooter(), GzipMember(tar), {}, {.disabled = true}),
                StatusIs(StatusCode::kDataLoss))
        << tar.substr(0, 20);
  }
}

TEST(TocDecoderTest, BoundsItsSize) {
  const TocLimits limits = {.toc_bytes = kJson.size() - 1};
  EXPECT_THAT(Decode(GzipFooter(), GzipToc(), {}, {.disabled = true}, limits),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(Decode(ZstdFooter(), ZstdFrame(kJson), {}, {.disabled = true}, limits),
              StatusIs(StatusCode::kDataLoss));
}

TEST(TocDecoderTest, RefusesDamagedBytes) {
  EXPECT_THAT(Decode(GzipFooter(), GzipToc().substr(0, 40), {}, {.disabled = true}),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(Decode(ZstdFooter(), "garbage", {}, {.disabled = true}),
              StatusIs(StatusCode::kDataLoss));
}

}  // namespace
}  // namespace strata
