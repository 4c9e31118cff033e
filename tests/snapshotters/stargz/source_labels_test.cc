// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/stargz/source_labels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

const std::string kA = "sha256:" + std::string(64, 'a');
const std::string kB = "sha256:" + std::string(64, 'b');
const std::string kC = "sha256:" + std::string(64, 'c');
const std::string kImage = "registry.test:5000/team/image:1";
const std::string kOther = "mirror.test/team/image:2";
const std::string kTarget = "sha256:" + std::string(64, '0');

constexpr const char* kCri = "containerd.io/snapshot/cri.";
constexpr const char* kStargz = "containerd.io/snapshot/remote/stargz.";

Labels Add(Labels labels, const std::string& prefix, const std::string& reference,
           const std::string& digest, const std::string& layers, bool cri,
           const std::string& suffix = "") {
  labels[prefix + (cri ? "image-ref" : "reference") + suffix] = reference;
  labels[prefix + (cri ? "layer-digest" : "digest") + suffix] = digest;
  if (!layers.empty()) {
    labels[prefix + (cri ? "image-layers" : "layers") + suffix] = layers;
  }
  return labels;
}

Labels Target() {
  return {{"containerd.io/snapshot.ref", kTarget}};
}
Labels Cri(Labels labels, const std::string& reference = kImage, const std::string& digest = kA,
           const std::string& layers = "") {
  return Add(std::move(labels), kCri, reference, digest, layers, /*cri=*/true);
}
Labels Stargz(Labels labels, const std::string& reference = kImage, const std::string& digest = kA,
              const std::string& layers = "", const std::string& suffix = "") {
  return Add(std::move(labels), kStargz, reference, digest, layers, /*cri=*/false, suffix);
}

std::vector<std::string> References(const SourceLabels& sources) {
  std::vector<std::string> references;
  for (const LayerRequest& place : sources.places) {
    references.push_back(place.reference);
  }
  return references;
}

std::vector<std::string> Digests(const std::vector<LayerRequest>& requests) {
  std::vector<std::string> digests;
  for (const LayerRequest& request : requests) {
    digests.push_back(request.digest);
  }
  return digests;
}

TEST(SourceLabelsTest, NobodyAsksForARemoteSnapshotWithoutATarget) {
  EXPECT_FALSE(ParseSourceLabels({}).has_value());
  EXPECT_FALSE(ParseSourceLabels(Cri({})).has_value());
  EXPECT_FALSE(ParseSourceLabels({{"containerd.io/snapshot.ref", ""}}).has_value());
}

TEST(SourceLabelsTest, TargetAloneNamesNoPlace) {
  const auto sources = ParseSourceLabels(Target());
  ASSERT_TRUE(sources.has_value());
  EXPECT_EQ(sources->target, kTarget);
  EXPECT_THAT(sources->places, IsEmpty());
  EXPECT_EQ(sources->problem, "no label names image and layer");
}

TEST(SourceLabelsTest, TakesWhatContainerdSays) {
  const auto sources = ParseSourceLabels(Cri(Target()));
  ASSERT_TRUE(sources.has_value());
  ASSERT_EQ(sources->places.size(), 1U);
  EXPECT_EQ(sources->places[0].reference, kImage);
  EXPECT_EQ(sources->places[0].digest, kA);
  EXPECT_FALSE(sources->places[0].prefetch_bytes.has_value());
  EXPECT_FALSE(sources->places[0].skip_verify);
}

TEST(SourceLabelsTest, TakesWhatOtherClientsSay) {
  const auto sources = ParseSourceLabels(Stargz(Target()));
  ASSERT_TRUE(sources.has_value());
  EXPECT_THAT(References(*sources), ElementsAre(kImage));
}

TEST(SourceLabelsTest, AsksContainerdsPlaceFirst) {
  const auto sources = ParseSourceLabels(Cri(Stargz(Target(), kOther), kImage));
  ASSERT_TRUE(sources.has_value());
  EXPECT_THAT(References(*sources), ElementsAre(kImage, kOther));
}

TEST(SourceLabelsTest, AsksASamePlaceOnce) {
  const auto sources = ParseSourceLabels(Cri(Stargz(Target())));
  ASSERT_TRUE(sources.has_value());
  EXPECT_THAT(References(*sources), ElementsAre(kImage));
}

TEST(SourceLabelsTest, TakesBuildKitsSourcesLast) {
  Labels labels = Stargz(Target());
  labels = Stargz(labels, "one.test/a:1", kA, "", ".0123456789abcdefghijklmno");
  labels = Stargz(labels, "two.test/a:1", kA, "", ".zzzzzzzzzzzzzzzzzzzzzzzzz");
  const auto sources = ParseSourceLabels(labels);
  ASSERT_TRUE(sources.has_value());
  EXPECT_THAT(References(*sources), ElementsAre(kImage, "one.test/a:1", "two.test/a:1"));
}

TEST(SourceLabelsTest, BuildKitsSourceNeedsNoPlainOne) {
  const auto sources = ParseSourceLabels(Stargz(Target(), kImage, kA, kA + "," + kB, ".id"));
  ASSERT_TRUE(sources.has_value());
  EXPECT_THAT(References(*sources), ElementsAre(kImage));
  EXPECT_THAT(Digests(sources->neighbours), ElementsAre(kB));
}

TEST(SourceLabelsTest, NeighboursAreTheOtherLayersOfTheFirstPlace) {
  const auto sources = ParseSourceLabels(
      Cri(Stargz(Target(), kOther, kA, kC), kImage, kA, kA + "," + kB + "," + kC));
  ASSERT_TRUE(sources.has_value());
  EXPECT_THAT(Digests(sources->neighbours), ElementsAre(kB, kC));
  EXPECT_EQ(sources->neighbours[0].reference, kImage);
}

TEST(SourceLabelsTest, NeighboursThatAreNoDigestsArePassedOver) {
  const auto sources = ParseSourceLabels(Cri(Target(), kImage, kA, ",sha256:b," + kB + ",,"));
  ASSERT_TRUE(sources.has_value());
  EXPECT_THAT(Digests(sources->neighbours), ElementsAre(kB));
}

TEST(SourceLabelsTest, UrlsAreOfTheLayerAndOfItsNeighboursByPlaceInTheList) {
  Labels labels = Cri(Target(), kImage, kA, kA + "," + kB);
  labels["containerd.io/snapshot/remote/urls"] = "https://x.test/a,https://y.test/a";
  labels["containerd.io/snapshot/remote/urls.1"] = "https://x.test/b";
  const auto sources = ParseSourceLabels(labels);
  ASSERT_TRUE(sources.has_value());
  EXPECT_THAT(sources->places[0].urls, ElementsAre("https://x.test/a", "https://y.test/a"));
  ASSERT_EQ(sources->neighbours.size(), 1U);
  EXPECT_THAT(sources->neighbours[0].urls, ElementsAre("https://x.test/b"));
}

TEST(SourceLabelsTest, PrefetchAndSkipVerifyHoldForAllLayers) {
  Labels labels = Stargz(Target(), kImage, kA, kA + "," + kB);
  labels[std::string(kStargz) + "prefetch"] = "10485760";
  labels[std::string(kStargz) + "skipverify"] = "true";
  const auto sources = ParseSourceLabels(labels);
  ASSERT_TRUE(sources.has_value());
  for (const LayerRequest& request : {sources->places[0], sources->neighbours[0]}) {
    EXPECT_EQ(request.prefetch_bytes, 10485760U);
    EXPECT_TRUE(request.skip_verify);
  }
}

TEST(SourceLabelsTest, PrefetchThatIsNoNumberIsNone) {
  for (const char* text : {"", "many", "-1", "1.5", "99999999999999999999"}) {
    Labels labels = Stargz(Target());
    labels[std::string(kStargz) + "prefetch"] = text;
    const auto sources = ParseSourceLabels(labels);
    ASSERT_TRUE(sources.has_value());
    EXPECT_FALSE(sources->places[0].prefetch_bytes.has_value()) << text;
  }
}

TEST(SourceLabelsTest, OtherLabelsAreTheLayersAnnotations) {
  Labels labels = Cri(Stargz(Target(), kOther));
  labels["containerd.io/snapshot/stargz/toc.digest"] = kB;
  labels["containerd.io/snapshot/remote"] = "remote snapshot";
  labels["containerd.io/snapshot/remote/urls"] = "https://x.test/a";
  const auto sources = ParseSourceLabels(labels);
  ASSERT_TRUE(sources.has_value());
  EXPECT_THAT(sources->places[0].annotations,
              ElementsAre(Pair("containerd.io/snapshot/stargz/toc.digest", kB)));
}

struct BadCase {
  std::string name;
  std::string reference;
  std::string digest;
  std::string said;
};
void PrintTo(const BadCase& bad, std::ostream* out) {
  *out << bad.name;
}

class SourceLabelsBadTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(SourceLabelsBadTest, NamesNoPlaceAndSaysWhy) {
  const auto sources = ParseSourceLabels(Cri(Target(), GetParam().reference, GetParam().digest));
  ASSERT_TRUE(sources.has_value());
  EXPECT_THAT(sources->places, IsEmpty());
  EXPECT_THAT(sources->problem, HasSubstr(GetParam().said));
}

TEST_P(SourceLabelsBadTest, IsPassedOverForAGoodOne) {
  const auto sources =
      ParseSourceLabels(Cri(Stargz(Target(), kOther), GetParam().reference, GetParam().digest));
  ASSERT_TRUE(sources.has_value());
  EXPECT_THAT(References(*sources), ElementsAre(kOther));
}

INSTANTIATE_TEST_SUITE_P(
    All, SourceLabelsBadTest,
    ::testing::Values(BadCase{"NoHost", "debian", kA, "cri.image-ref"},
                      BadCase{"NoReference", "", kA, "cri.image-ref"},
                      BadCase{"Traversal", "registry.test/../x:1", kA, "cri.image-ref"},
                      BadCase{"NoDigest", kImage, "", "cri.layer-digest"},
                      BadCase{"ShortDigest", kImage, "sha256:ab", "cri.layer-digest"},
                      BadCase{"OtherAlgorithm", kImage, "md5:" + std::string(32, 'a'),
                              "cri.layer-digest"},
                      BadCase{"Path", kImage, "../../etc/passwd", "cri.layer-digest"}),
    [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace strata
