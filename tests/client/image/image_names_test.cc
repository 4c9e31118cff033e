// SPDX-License-Identifier: Apache-2.0
//
// What is read of names, manifests and configurations, without any I/O.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/image/image_config.h"
#include "client/image/image_manifest.h"
#include "client/image/image_source.h"
#include "client/image/lazy_labels.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

const std::string kOne = "sha256:" + std::string(64, '1');
const std::string kTwo = "sha256:" + std::string(64, '2');

struct NameCase {
  std::string text;
  std::string name;
};

class ImageName : public ::testing::TestWithParam<NameCase> {};

TEST_P(ImageName, IsCompletedAsDockerDoes) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ImageSource source, ParseImageSource(GetParam().text));
  EXPECT_EQ(source.name, GetParam().name);
}

INSTANTIATE_TEST_SUITE_P(
    All, ImageName,
    ::testing::Values(NameCase{"debian", "docker.io/library/debian:latest"},
                      NameCase{"debian:12", "docker.io/library/debian:12"},
                      NameCase{"user/tool", "docker.io/user/tool:latest"},
                      NameCase{"docker.io/debian", "docker.io/library/debian:latest"},
                      NameCase{"index.docker.io/library/debian", "docker.io/library/debian:latest"},
                      NameCase{"localhost/a", "localhost/a:latest"},
                      NameCase{"host:5000/a/b:c", "host:5000/a/b:c"},
                      NameCase{"ghcr.io/a/b@" + kOne, "ghcr.io/a/b@" + kOne},
                      NameCase{"debian@" + kOne, "docker.io/library/debian@" + kOne},
                      NameCase{"oci:/srv/image:one", "oci:/srv/image:one"},
                      NameCase{"oci:/srv/image", "oci:/srv/image"},
                      NameCase{"oci-archive:/a.tar:docker.io/a:1",
                               "oci-archive:/a.tar:docker.io/a:1"}));

TEST(ImageSourceTest, RefusesWhatIsNoName) {
  for (const char* text : {"", "UPPER", "a b", "debian:", "host:5000/", "oci:", "oci::tag",
                           "oci:/a:", "../a", "debian@sha256:12"}) {
    EXPECT_THAT(ParseImageSource(text), StatusIs(StatusCode::kInvalidArgument)) << text;
  }
}

TEST(ImageConfigTest, ReadsWhatItRuns) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const ImageConfig config,
      ParseImageConfig(R"({"os":"linux","architecture":"arm64","config":{"Env":["A=b"],
          "Entrypoint":null,"Cmd":["x"],"User":"1:2","Labels":{"k":"v"}},"rootfs":{"diff_ids":[")" +
                       kOne + R"("]}})"));
  EXPECT_EQ(config.platform.architecture, "arm64");
  EXPECT_EQ(config.cmd, std::vector<std::string>{"x"});
  EXPECT_TRUE(config.entrypoint.empty());
  EXPECT_EQ(config.labels.at("k"), "v");
  EXPECT_EQ(config.diff_ids, std::vector<std::string>{kOne});
}

TEST(ImageConfigTest, RefusesWhatIsNone) {
  for (const char* text : {"", "[]", "{}", R"({"rootfs":{"diff_ids":["x"]}})",
                           R"({"rootfs":{},"config":{"Env":"A=b"}})",
                           R"({"rootfs":{},"config":{"Labels":{"a":1}}})"}) {
    EXPECT_THAT(ParseImageConfig(text), StatusIs(StatusCode::kDataLoss)) << text;
  }
}

// image-spec, config.md, "Layer ChainID".
TEST(ChainIdTest, IsTheDiffIdOfOneLayerAndAHashOfMore) {
  EXPECT_EQ(ChainIdOf({kOne}), kOne);
  EXPECT_NE(ChainIdOf({kOne, kTwo}), ChainIdOf({kTwo, kOne}));
  EXPECT_EQ(ChainIdOf({kOne, kTwo}).size(), kOne.size());
}

IndexEntry Offer(const std::string& architecture, const std::string& variant) {
  return {.manifest = {.digest = architecture + variant},
          .platform = {.os = "linux", .architecture = architecture, .variant = variant},
          .has_platform = true};
}

TEST(ChoosePlatformTest, PrefersTheVariantItselfThenTheNextLower) {
  const std::vector<IndexEntry> all = {Offer("amd64", ""), Offer("arm", "v5"), Offer("arm", "v6"),
                                       Offer("arm", "v7"), Offer("arm64", "v8")};
  const auto choose = [](const std::vector<IndexEntry>& entries, const Platform& platform) {
    return ChoosePlatform(entries, platform).value_or(IndexEntry{}).manifest.digest;
  };
  EXPECT_EQ(choose(all, {"linux", "arm", "v7"}), "armv7");
  EXPECT_EQ(choose(all, {"linux", "arm", ""}), "armv7");
  EXPECT_EQ(choose({all[1], all[2]}, {"linux", "arm", "v7"}), "armv6");
  EXPECT_EQ(choose(all, {"linux", "arm64", ""}), "arm64v8");
  EXPECT_EQ(choose(all, {"linux", "x86_64", ""}), "amd64");
}

TEST(ChoosePlatformTest, SaysWhichThereAre) {
  EXPECT_THAT(ChoosePlatform({Offer("arm", "v7"), Offer("s390x", "")}, {"linux", "arm", "v6"}),
              StatusIs(StatusCode::kNotFound,
                       AllOf(HasSubstr("linux/arm/v6"), HasSubstr("linux/arm/v7, linux/s390x"))));
}

TEST(ImageManifestTest, SaysThatSchemaOneIsTooOld) {
  EXPECT_THAT(ParseImageManifest(R"({"schemaVersion":1,"fsLayers":[]})"),
              StatusIs(StatusCode::kUnimplemented));
}

TEST(ImageManifestTest, RefusesDescriptorsThatAreNone) {
  for (const char* text : {"", "{}", R"({"layers":[],"config":{}})",
                           R"({"layers":[],"config":{"digest":"sha256:1","size":1}})"}) {
    EXPECT_THAT(ParseImageManifest(text), StatusIs(StatusCode::kDataLoss)) << text;
  }
}

TEST(LazyLabelsTest, NamesLayerImageAndThoseAbove) {
  const std::vector<ImageLayer> layers = {
      {.blob = {.digest = kOne},
       .annotations = {{"containerd.io/snapshot/stargz/toc.digest", kTwo}, {"other", "x"}}},
      {.blob = {.digest = kTwo}}};
  const Labels labels = LazyLabels(layers, "host/a:b@" + kOne, kTwo, "chain");
  EXPECT_EQ(labels.at("containerd.io/snapshot.ref"), "chain");
  EXPECT_EQ(labels.at("containerd.io/snapshot/remote/stargz.digest"), kOne);
  EXPECT_EQ(labels.at("containerd.io/snapshot/remote/stargz.layers"), kOne + "," + kTwo);
  EXPECT_EQ(labels.at("containerd.io/snapshot/stargz/toc.digest"), kTwo);
  EXPECT_FALSE(labels.contains("other"));
}

}  // namespace
}  // namespace strata
