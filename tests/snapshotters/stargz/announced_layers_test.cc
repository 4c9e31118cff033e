// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/stargz/announced_layers.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace strata {
namespace {

LayerRequest Layer(const std::string& digest, const std::string& reference = "r.test/a:1") {
  return {.reference = reference, .digest = digest};
}

TEST(AnnouncedLayersTest, FirstLayerOfAnImageIsNews) {
  AnnouncedLayers announced;
  EXPECT_TRUE(announced.IsFirst(Layer("a"), {Layer("b"), Layer("c")}));
}

TEST(AnnouncedLayersTest, LayersThatWereExpectedAreNot) {
  AnnouncedLayers announced;
  EXPECT_TRUE(announced.IsFirst(Layer("a"), {Layer("b"), Layer("c")}));
  EXPECT_FALSE(announced.IsFirst(Layer("b"), {Layer("c")}));
  EXPECT_FALSE(announced.IsFirst(Layer("c"), {}));
}

TEST(AnnouncedLayersTest, SecondPullOfAnImageIsNewsAgain) {
  AnnouncedLayers announced;
  EXPECT_TRUE(announced.IsFirst(Layer("a"), {Layer("b")}));
  EXPECT_FALSE(announced.IsFirst(Layer("b"), {}));
  EXPECT_TRUE(announced.IsFirst(Layer("a"), {Layer("b")}));
  EXPECT_FALSE(announced.IsFirst(Layer("b"), {}));
}

TEST(AnnouncedLayersTest, LayerOfAnotherImageIsNews) {
  AnnouncedLayers announced;
  EXPECT_TRUE(announced.IsFirst(Layer("a"), {Layer("b")}));
  EXPECT_TRUE(announced.IsFirst(Layer("b", "r.test/b:1"), {}));
}

TEST(AnnouncedLayersTest, ForgetsTheOldestOfTooMany) {
  AnnouncedLayers announced;
  EXPECT_TRUE(announced.IsFirst(Layer("a"), {Layer("old")}));
  std::vector<LayerRequest> many;
  for (size_t i = 0; i < AnnouncedLayers::kMost; ++i) {
    many.push_back(Layer("n" + std::to_string(i)));
  }
  EXPECT_TRUE(announced.IsFirst(Layer("b"), many));
  EXPECT_TRUE(announced.IsFirst(Layer("old"), {}));
  EXPECT_FALSE(announced.IsFirst(many.back(), {}));
}

}  // namespace
}  // namespace strata
