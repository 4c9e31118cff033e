// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/toc_pin.h"

#include <map>
#include <string>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::StatusIs;

const std::string kDigest = "sha256:" + std::string(62, '0') + "ab";

TEST(TocPinTest, ReadsTheDigestOfEstargz) {
  STRATA_ASSERT_OK_AND_ASSIGN(const TocPin pin,
                              ParseTocPin({{"containerd.io/snapshot/stargz/toc.digest", kDigest}}));
  ASSERT_TRUE(pin.toc_digest);
  EXPECT_EQ(pin.toc_digest->back(), 0xab);
  EXPECT_TRUE(pin.pinned());
}

TEST(TocPinTest, ShowsADigestAsItReadsIt) {
  const auto digest = ParseSha256(kDigest);
  ASSERT_TRUE(digest);
  EXPECT_EQ(ShowSha256(*digest), kDigest);
}

TEST(TocPinTest, ReadsBothFamiliesOfZstdChunked) {
  for (const std::string family :
       {"io.containers.zstd-chunked.", "io.github.containers.zstd-chunked."}) {
    STRATA_ASSERT_OK_AND_ASSIGN(const TocPin pin,
                                ParseTocPin({{family + "manifest-checksum", kDigest},
                                             {family + "manifest-position", "10:20:30:1"}}));
    EXPECT_TRUE(pin.manifest_checksum);
    EXPECT_EQ(pin.manifest_position,
              (ManifestPosition{.range = {.offset = 10, .bytes = 20}, .bytes = 30}));
  }
}

TEST(TocPinTest, IsEmptyWithoutLabels) {
  STRATA_ASSERT_OK_AND_ASSIGN(const TocPin pin, ParseTocPin({{"other", "x"}}));
  EXPECT_FALSE(pin.pinned());
}

TEST(TocPinTest, RefusesLabelsThatItCannotRead) {
  const std::map<std::string, std::string> bad[] = {
      {{"containerd.io/snapshot/stargz/toc.digest", ""}},
      {{"containerd.io/snapshot/stargz/toc.digest", kDigest + "0"}},
      {{"containerd.io/snapshot/stargz/toc.digest", "sha512:" + kDigest.substr(7)}},
      {{"containerd.io/snapshot/stargz/toc.digest", kDigest.substr(0, 70) + "g"}},
      {{"io.containers.zstd-chunked.manifest-position", "10:20:30"}},
      {{"io.containers.zstd-chunked.manifest-position", "10:20:30:2"}},
      {{"io.containers.zstd-chunked.manifest-position", "10:20:30:1:"}},
      {{"io.containers.zstd-chunked.manifest-position", "-1:20:30:1"}},
      {{"io.containers.zstd-chunked.manifest-position", "99999999999999999999:20:30:1"}},
  };
  for (const auto& labels : bad) {
    EXPECT_THAT(ParseTocPin(labels), StatusIs(StatusCode::kInvalidArgument))
        << labels.begin()->second;
  }
}

}  // namespace
}  // namespace strata
