// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/manifest.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::StatusIs;

const std::string kDigest = "sha256:" + std::string(64, 'a');

std::string WithLayers(const std::string& layers) {
  return R"({"schemaVersion":2,"config":{},"layers":[)" + layers + "]}";
}

TEST(ManifestTest, ReadsLayers) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto layers,
      ParseManifestLayers(WithLayers(R"({"digest":")" + kDigest +
                                     R"(","size":7,"annotations":{"k":"v","n":1}},{"digest":")" +
                                     kDigest + R"(","size":0})")));
  ASSERT_EQ(layers.size(), 2U);
  EXPECT_EQ(layers[0].digest, kDigest);
  EXPECT_EQ(layers[0].size, 7U);
  EXPECT_EQ(layers[0].annotations, (std::map<std::string, std::string>{{"k", "v"}}));
  EXPECT_TRUE(layers[1].annotations.empty());
}

class BadManifestTest : public ::testing::TestWithParam<std::string> {};

TEST_P(BadManifestTest, IsRefused) {
  EXPECT_THAT(ParseManifestLayers(GetParam()), StatusIs(StatusCode::kDataLoss));
}
INSTANTIATE_TEST_SUITE_P(
    All, BadManifestTest,
    ::testing::Values("", "<html>", "[]", "{}", R"({"layers":{}})", WithLayers("1"),
                      WithLayers(R"({"size":7})"), WithLayers(R"({"digest":"sha256:x","size":7})"),
                      WithLayers(R"({"digest":")" + kDigest + R"(","size":-7})"),
                      WithLayers(R"({"digest":")" + kDigest + R"("})")));

}  // namespace
}  // namespace strata
