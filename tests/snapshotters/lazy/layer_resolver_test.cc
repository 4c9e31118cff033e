// SPDX-License-Identifier: Apache-2.0
//
// How footer and TOC of a layer come from its registry: what is asked for, and how often.
#include "snapshotters/lazy/layer_resolver.h"

#include <algorithm>

#include "snapshotters/lazy/layer_table.h"
#include "tests/snapshotters/lazy/layer_store_fixture.h"
#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr const char* kTocDigest = "containerd.io/snapshot/stargz/toc.digest";
constexpr uint64_t kTailBytes = 256 << 10;

// Long names of no pattern, so that the compressed TOC is longer than a tail.
BuiltLayer ManyFiles(const LayerBuildOptions& options = {}) {
  std::vector<LayerEntry> entries;
  for (int i = 0; i < 5'000; ++i) {
    entries.push_back({.name = DigestOf(std::to_string(i)).substr(7)});
    entries.back().xattrs["user.x"] = DigestOf(std::to_string(-i));
  }
  return BuildLayer(entries, options);
}

class LayerResolverTest : public LayerStoreFixture {
 protected:
  std::string RangeOf(size_t request) { return registry_.requests().at(request).Header("range"); }
};

TEST_F(LayerResolverTest, AsksForTheRestOfALongTocExactly) {
  Start();
  const BuiltLayer layer = ManyFiles();
  ASSERT_GT(layer.toc_bytes, kTailBytes);
  registry_.Put(layer.blob);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto use, store_->Get(Ask(layer)));
  EXPECT_EQ(use->layer().image().source().inodes, 5'001U);
  ASSERT_THAT(registry_.requests(), SizeIs(2));
  EXPECT_EQ(RangeOf(0), "bytes=-" + std::to_string(kTailBytes));
  EXPECT_EQ(RangeOf(1), "bytes=" + std::to_string(layer.toc_offset) + "-" +
                            std::to_string(layer.blob.size() - kTailBytes - 1));
}

TEST_F(LayerResolverTest, AsksForJustTheTocWhereTheManifestSaysWhereItIs) {
  Start();
  for (const LayerFormat format :
       {LayerFormat::kZstdChunked, LayerFormat::kZstdChunkedContainers}) {
    const BuiltLayer layer = ManyFiles({.format = format});
    registry_.Put(layer.blob);
    LayerRequest request = Ask(layer);
    request.blob_bytes = layer.blob.size();
    const size_t before = registry_.requests().size();
    STRATA_ASSERT_OK_AND_ASSIGN(const auto use, store_->Get(request));
    EXPECT_EQ(use->layer().image().source().format, format);
    EXPECT_EQ(use->layer().image().source().blob_bytes, layer.blob.size());
    ASSERT_THAT(registry_.requests(), SizeIs(before + 1));
    EXPECT_EQ(RangeOf(before), "bytes=" + std::to_string(layer.toc_offset) + "-" +
                                   std::to_string(layer.toc_offset + layer.toc_bytes - 1));
  }
}

TEST_F(LayerResolverTest, APositionBeyondTheBlobIsNotAskedFor) {
  Start();
  const BuiltLayer layer = Add("one", {.format = LayerFormat::kZstdChunked});
  LayerRequest request = Ask(layer);
  request.blob_bytes = layer.blob.size();
  request.annotations["io.containers.zstd-chunked.manifest-position"] =
      "18446744073709551000:900:900:1";
  // The footer is asked then, and contradicts it.
  EXPECT_EQ(ReasonOf(GetStatus(request)), FallbackReason::kBadLayer);
}

TEST_F(LayerResolverTest, RefusesABlobOfAnotherSizeThanTheManifestSays) {
  Start();
  const BuiltLayer layer = Add("one");
  LayerRequest request = Ask(layer);
  request.blob_bytes = layer.blob.size() + 1000;
  EXPECT_FALSE(GetStatus(request).ok());
}

TEST_F(LayerResolverTest, AsksForTheManifestOfATocImageOnce) {
  Start();
  const BuiltLayer one = Add("one", {.format = LayerFormat::kExternalToc});
  const BuiltLayer two = Add("two", {.format = LayerFormat::kExternalToc});
  registry_.Put(one.toc_blob);
  registry_.Put(two.toc_blob);
  // One manifest with the TOCs of both.
  const auto layers = [](const std::string& manifest) {
    const size_t begin = manifest.find('[') + 1;
    return manifest.substr(begin, manifest.rfind(']') - begin);
  };
  registry_.PutManifest("1-esgztoc", "{\"schemaVersion\":2,\"layers\":[" +
                                         layers(one.toc_manifest) + "," + layers(two.toc_manifest) +
                                         "]}");
  GetNumber(one);
  GetNumber(two);
  const std::vector<ServerRequest> requests = registry_.requests();
  EXPECT_THAT(requests, SizeIs(5));
  const auto is_manifest = [](const ServerRequest& request) {
    return request.target.ends_with("/manifests/1-esgztoc") &&
           request.Header("accept").find("oci.image.manifest") != std::string::npos;
  };
  EXPECT_EQ(std::count_if(requests.begin(), requests.end(), is_manifest), 1);
}

TEST_F(LayerResolverTest, LayersOfOneImageJoinInAskingForItsTocImage) {
  Start();
  const BuiltLayer one = Add("one", {.format = LayerFormat::kExternalToc});
  const BuiltLayer two = Add("two", {.format = LayerFormat::kExternalToc});
  store_->Announce({Ask(one), Ask(two)});
  EXPECT_TRUE(Eventually([&] { return Fallbacks().size() == 2; }));
  for (const LayerStore::Row& row : Fallbacks()) {
    EXPECT_EQ(row.reason, FallbackReason::kRegistry);
    EXPECT_THAT(row.detail, HasSubstr("TOC image"));
  }
}

TEST_F(LayerResolverTest, AReferenceWithoutATagHasNoTocImage) {
  Start();
  LayerRequest request = Ask(Add("one", {.format = LayerFormat::kExternalToc}));
  request.reference =
      request.reference.substr(0, request.reference.rfind(':')) + "@sha256:" + std::string(64, 'a');
  EXPECT_THAT(GetStatus(request), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("tag")));
}

TEST_F(LayerResolverTest, ATocImageThatIsNoManifestIsABadLayer) {
  Start();
  const BuiltLayer layer = Add("one", {.format = LayerFormat::kExternalToc});
  registry_.PutManifest("1-esgztoc", "<html></html>");
  EXPECT_EQ(ReasonOf(GetStatus(Ask(layer))), FallbackReason::kBadLayer);
}

TEST_F(LayerResolverTest, ATocImageWithAnotherTocIsABadLayer) {
  Start();
  const BuiltLayer layer = Add("one", {.format = LayerFormat::kExternalToc});
  const BuiltLayer other = Add("two", {.format = LayerFormat::kExternalToc});
  registry_.PutManifest("1-esgztoc", layer.toc_manifest);
  registry_.PutAs(layer.toc_blob_digest, other.toc_blob);
  EXPECT_FALSE(GetStatus(Ask(layer)).ok());
}

// The image's manifest, as its client would name it.
std::string ManifestOf(const std::vector<BuiltLayer>& layers) {
  std::string json;
  for (const BuiltLayer& layer : layers) {
    std::string annotations;
    for (const auto& [key, value] : layer.annotations) {
      annotations += (annotations.empty() ? "\"" : ",\"") + key + "\":\"" + value + "\"";
    }
    json += json.empty() ? "" : ",";
    json += R"({"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":")" + layer.digest +
            R"(","size":)" + std::to_string(layer.blob.size()) + R"(,"annotations":{)" +
            annotations + "}}";
  }
  return "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
         "\"layers\":[" +
         json + "]}";
}

// Clients hand on the annotations that they know; Podman's they do not.
class UnpinnedLayerTest : public LayerResolverTest {
 protected:
  LayerRequest AskByManifest(const BuiltLayer& layer, const std::string& manifest) {
    LayerRequest request = Ask(layer);
    request.annotations.clear();
    request.manifest_digest = DigestOf(manifest);
    return request;
  }
};

TEST_F(UnpinnedLayerTest, FindsItsPinInTheManifestWhichIsAskedForOnce) {
  Start();
  const BuiltLayer one = Add("one", {.format = LayerFormat::kZstdChunkedContainers});
  const BuiltLayer two = Add("two", {.format = LayerFormat::kZstdChunkedContainers});
  const std::string manifest = ManifestOf({one, two});
  registry_.PutManifest(DigestOf(manifest), manifest);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto use, store_->Get(AskByManifest(one, manifest)));
  EXPECT_TRUE(use->layer().image().source().verified);
  EXPECT_THAT(store_->Get(AskByManifest(two, manifest)), IsOk());
  const std::vector<ServerRequest> requests = registry_.requests();
  EXPECT_EQ(std::count_if(requests.begin(), requests.end(),
                          [](const ServerRequest& request) {
                            return request.target.find("/manifests/") != std::string::npos;
                          }),
            1);
}

TEST_F(UnpinnedLayerTest, DoesNotTrustAManifestOfAnotherDigest) {
  Start();
  const BuiltLayer layer = Add("one", {.format = LayerFormat::kZstdChunkedContainers});
  const std::string manifest = ManifestOf({layer});
  registry_.PutManifest(DigestOf(manifest), manifest + " ");
  EXPECT_THAT(GetStatus(AskByManifest(layer, manifest)),
              StatusIs(StatusCode::kDataLoss, HasSubstr("manifest")));
}

TEST_F(UnpinnedLayerTest, IsNotLazyWhenTheManifestPinsNothingEither) {
  Start();
  BuiltLayer layer = Add("one");
  LayerRequest request = AskByManifest(layer, "");
  layer.annotations.clear();
  const std::string manifest = ManifestOf({layer});
  registry_.PutManifest(DigestOf(manifest), manifest);
  request.manifest_digest = DigestOf(manifest);
  EXPECT_EQ(ReasonOf(GetStatus(request)), FallbackReason::kNoPin);
}

TEST_F(UnpinnedLayerTest, OfAnOrdinaryImageCostsNoManifest) {
  Start();
  const BuiltLayer layer = Add("one", {.format = LayerFormat::kEstargz});
  LayerRequest request = AskByManifest(layer, "x");
  const std::string ordinary(100'000, 'o');
  registry_.Put(ordinary);
  request.digest = DigestOf(ordinary);
  EXPECT_EQ(ReasonOf(GetStatus(request)), FallbackReason::kNotLazy);
  EXPECT_THAT(registry_.requests(), SizeIs(1));
}

TEST(ParseLayerRequestTest, UnderstandsWhoAsks) {
  LayerRequest request{.reference = "example.org/a:1", .digest = DigestOf("x")};
  STRATA_ASSERT_OK_AND_ASSIGN(LayerQuestion question, ParseLayerRequest(request, {}, false));
  EXPECT_FALSE(question.policy.allow_unpinned);
  EXPECT_FALSE(question.zstd_format.has_value());
  request.skip_verify = true;
  request.annotations["io.containers.zstd-chunked.manifest-checksum"] = DigestOf("toc");
  STRATA_ASSERT_OK_AND_ASSIGN(question, ParseLayerRequest(request, {}, true));
  EXPECT_TRUE(question.policy.allow_unpinned);
  EXPECT_EQ(question.zstd_format, LayerFormat::kZstdChunked);
}

TEST(ParseLayerRequestTest, QuestionsDifferByWhatTheAnswerHangsOn) {
  const LayerRequest request{.reference = "example.org/a:1",
                             .digest = DigestOf("x"),
                             .annotations = {{kTocDigest, DigestOf("toc")}}};
  const std::string key = ParseLayerRequest(request, {}, true)->Key();
  LayerRequest other = request;
  other.reference = "example.org/a:2";
  EXPECT_EQ(ParseLayerRequest(other, {}, true)->Key(), key);
  other.reference = "example.org/b:1";
  EXPECT_NE(ParseLayerRequest(other, {}, true)->Key(), key);
  other = request;
  other.annotations[kTocDigest] = DigestOf("another toc");
  EXPECT_NE(ParseLayerRequest(other, {}, true)->Key(), key);
  other = request;
  other.skip_verify = true;
  EXPECT_NE(ParseLayerRequest(other, {}, true)->Key(), key);
}

// Which known layer may answer which question.
struct AnswerCase {
  const char* name;
  std::function<void(LayerSource&, LayerQuestion&)> change;
  bool answers;
};
class AnswersTest : public ::testing::TestWithParam<AnswerCase> {};

TEST_P(AnswersTest, Holds) {
  LayerSource source{.reference = "example.org/a:1",
                     .digest = DigestOf("x"),
                     .toc_digest = DigestOf("toc"),
                     .toc_compressed_digest = DigestOf("compressed")};
  const LayerRequest request{.reference = "example.org/b:1",
                             .digest = DigestOf("x"),
                             .annotations = {{kTocDigest, DigestOf("toc")}}};
  LayerQuestion question = *ParseLayerRequest(request, {}, false);
  GetParam().change(source, question);
  EXPECT_EQ(Answers(source, question, /*user_xattr=*/false), GetParam().answers);
}
INSTANTIATE_TEST_SUITE_P(
    All, AnswersTest,
    ::testing::Values(
        AnswerCase{"same_pin", [](LayerSource&, LayerQuestion&) {}, true},
        AnswerCase{"other_digest",
                   [](LayerSource& source, LayerQuestion&) { source.digest = DigestOf("y"); },
                   false},
        AnswerCase{"other_toc",
                   [](LayerSource& source, LayerQuestion&) { source.toc_digest = DigestOf("y"); },
                   false},
        AnswerCase{"other_xattr",
                   [](LayerSource& source, LayerQuestion&) { source.user_xattr = true; }, false},
        AnswerCase{"unverified",
                   [](LayerSource& source, LayerQuestion&) { source.verified = false; }, false},
        AnswerCase{"checksum_of_gzip_is_no_pin",
                   [](LayerSource&, LayerQuestion& question) {
                     question.pin.manifest_checksum = question.pin.toc_digest;
                     question.pin.toc_digest.reset();
                   },
                   false},
        AnswerCase{"checksum",
                   [](LayerSource& source, LayerQuestion& question) {
                     source.format = LayerFormat::kZstdChunked;
                     question.pin.toc_digest.reset();
                     question.pin.manifest_checksum = ParseSha256(DigestOf("compressed"));
                   },
                   true},
        AnswerCase{"other_checksum",
                   [](LayerSource& source, LayerQuestion& question) {
                     source.format = LayerFormat::kZstdChunked;
                     question.pin.manifest_checksum = ParseSha256(DigestOf("y"));
                   },
                   false},
        AnswerCase{"no_pin",
                   [](LayerSource& source, LayerQuestion& question) {
                     source.reference = "example.org/b:2";
                     question.pin.toc_digest.reset();
                   },
                   false},
        AnswerCase{"no_pin_allowed_same_repository",
                   [](LayerSource& source, LayerQuestion& question) {
                     source.reference = "example.org/b:2";
                     question.pin.toc_digest.reset();
                     question.policy.allow_unpinned = true;
                   },
                   true},
        AnswerCase{"no_pin_allowed_other_repository",
                   [](LayerSource&, LayerQuestion& question) {
                     question.pin.toc_digest.reset();
                     question.policy.allow_unpinned = true;
                   },
                   false},
        AnswerCase{"disabled_same_repository",
                   [](LayerSource& source, LayerQuestion& question) {
                     source.reference = "example.org/b@" + DigestOf("m");
                     source.verified = false;
                     source.toc_digest = DigestOf("y");
                     question.policy.disabled = true;
                   },
                   true}),
    [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace strata::testing
