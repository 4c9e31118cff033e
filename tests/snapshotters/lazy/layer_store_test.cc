// SPDX-License-Identifier: Apache-2.0
//
// A LayerStore as its callers see it: what it gives, how often it asks, what it remembers.
#include "snapshotters/lazy/layer_store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <future>

#include "tests/snapshotters/lazy/layer_store_fixture.h"
#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr const char* kTocDigest = "containerd.io/snapshot/stargz/toc.digest";

class LayerStoreTest : public LayerStoreFixture {};

TEST_F(LayerStoreTest, ResolvesALayerInOneRequest) {
  Start();
  const BuiltLayer layer = Add("one");
  STRATA_ASSERT_OK_AND_ASSIGN(const auto use, store_->Get(Ask(layer)));
  EXPECT_THAT(registry_.requests(), SizeIs(1));
  EXPECT_EQ(use->number(), 1U);
  EXPECT_THAT(presenter_.shown(), ElementsAre(options_.root + "/l/1"));
  EXPECT_EQ(use->layer().image().source().toc_digest, layer.toc_digest);
  EXPECT_TRUE(use->layer().image().source().verified);
  EXPECT_TRUE(OnDisk(1));
}

struct FormatCase {
  const char* name;
  LayerFormat format;
  size_t requests;
};
class LayerStoreFormatTest : public LayerStoreFixture,
                             public ::testing::WithParamInterface<FormatCase> {};

TEST_P(LayerStoreFormatTest, ResolvesIt) {
  Start();
  const BuiltLayer layer = Add("one", {.format = GetParam().format});
  if (!layer.toc_blob.empty()) {
    registry_.Put(layer.toc_blob);
    registry_.PutManifest("1-esgztoc", layer.toc_manifest);
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto use, store_->Get(Ask(layer)));
  const LayerImage& image = use->layer().image();
  EXPECT_EQ(image.source().format, GetParam().format);
  EXPECT_EQ(image.source().blob_bytes, layer.blob.size());
  EXPECT_EQ(image.source().inodes, 3U);
  EXPECT_EQ(image.chunks().chunks(), 1U);
  EXPECT_THAT(registry_.requests(), SizeIs(GetParam().requests));
}
INSTANTIATE_TEST_SUITE_P(All, LayerStoreFormatTest,
                         ::testing::Values(FormatCase{"estargz", LayerFormat::kEstargz, 1},
                                           FormatCase{"external", LayerFormat::kExternalToc, 3},
                                           FormatCase{"zstd", LayerFormat::kZstdChunked, 1},
                                           FormatCase{"zstd_containers",
                                                      LayerFormat::kZstdChunkedContainers, 1}),
                         [](const auto& one) { return one.param.name; });

TEST_F(LayerStoreTest, TakesALegacyLayerOnlyWithoutVerification) {
  options_.allow_skip_verify = true;
  Start();
  BuiltLayer layer = Add("one", {.format = LayerFormat::kLegacyStargz});
  EXPECT_EQ(ReasonOf(GetStatus(Ask(layer))), FallbackReason::kBadLayer);
  layer.annotations.clear();
  LayerRequest request = Ask(layer);
  EXPECT_EQ(ReasonOf(GetStatus(request)), FallbackReason::kNoPin);
  request.skip_verify = true;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto use, store_->Get(request));
  EXPECT_FALSE(use->layer().image().source().verified);
}

TEST_F(LayerStoreTest, IgnoresSkipVerifyWhereItIsNotAllowed) {
  Start();
  LayerRequest request = Ask(Add("one"));
  request.annotations.clear();
  request.skip_verify = true;
  EXPECT_EQ(ReasonOf(GetStatus(request)), FallbackReason::kNoPin);
}

TEST_F(LayerStoreTest, NeverGivesAnUnverifiedLayerToWhoWantsAVerifiedOne) {
  options_.allow_skip_verify = true;
  Start();
  const BuiltLayer layer = Add("one");
  LayerRequest request = Ask(layer);
  request.annotations.clear();
  request.skip_verify = true;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto unverified, store_->Get(request));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto verified, store_->Get(Ask(layer)));
  EXPECT_NE(unverified->number(), verified->number());
  EXPECT_TRUE(verified->layer().image().source().verified);
}

TEST_F(LayerStoreTest, AnswersKnownLayersWithoutTheRegistry) {
  Start();
  const BuiltLayer layer = Add("one");
  const uint64_t number = GetNumber(layer);
  registry_.Intercept([](const ServerRequest&) { return ServerReply{.status = 503}; });
  EXPECT_EQ(GetNumber(layer), number);
  EXPECT_THAT(registry_.requests(), SizeIs(1));
}

TEST_F(LayerStoreTest, KnowsItsLayersAfterARestartWithTheRegistryDown) {
  Start();
  const BuiltLayer one = Add("one");
  const BuiltLayer two = Add("two", {.format = LayerFormat::kZstdChunkedContainers});
  EXPECT_EQ(GetNumber(one), 1U);
  EXPECT_EQ(GetNumber(two), 2U);
  Stop();
  referenced_ = {1, 2};
  registry_.Intercept([](const ServerRequest&) { return ServerReply{.status = 503}; });
  Start();
  EXPECT_THAT(presenter_.shown(), SizeIs(4));
  EXPECT_EQ(GetNumber(one), 1U);
  EXPECT_EQ(GetNumber(two), 2U);
  EXPECT_THAT(store_->Find(2), IsOk());
  EXPECT_THAT(registry_.requests(), SizeIs(2));
}

TEST_F(LayerStoreTest, ShowsWhatNobodyRefersToOnlyWhenItIsAskedFor) {
  Start();
  const BuiltLayer layer = Add("one");
  GetNumber(layer);
  Stop();
  Start();
  EXPECT_THAT(presenter_.shown(), SizeIs(1));
  GetNumber(layer);
  EXPECT_THAT(presenter_.shown(), SizeIs(2));
}

TEST_F(LayerStoreTest, RefusesALayerThatIsNotWhatTheManifestPins) {
  Start();
  LayerRequest request = Ask(Add("one"));
  request.annotations[kTocDigest] = "sha256:" + std::string(64, 'b');
  EXPECT_THAT(GetStatus(request), StatusIs(StatusCode::kDataLoss, HasSubstr(request.digest)));
  EXPECT_EQ(ReasonOf(GetStatus(request)), FallbackReason::kBadLayer);
  EXPECT_FALSE(OnDisk(1));
}

TEST_F(LayerStoreTest, AKnownLayerDoesNotAnswerAnotherPin) {
  Start();
  const BuiltLayer layer = Add("one");
  GetNumber(layer);
  LayerRequest request = Ask(layer);
  request.annotations[kTocDigest] = "sha256:" + std::string(64, 'b');
  EXPECT_THAT(GetStatus(request), StatusIs(StatusCode::kDataLoss));
}

TEST_F(LayerStoreTest, HoldsAZstdLayerToItsChecksum) {
  Start();
  const BuiltLayer layer = Add("one", {.format = LayerFormat::kZstdChunkedContainers});
  LayerRequest request = Ask(layer);
  request.annotations["io.github.containers.zstd-chunked.manifest-checksum"] =
      "sha256:" + std::string(64, 'b');
  EXPECT_THAT(GetStatus(request), StatusIs(StatusCode::kDataLoss));
  GetNumber(layer);
  EXPECT_THAT(GetStatus(request), StatusIs(StatusCode::kDataLoss));
}

TEST_F(LayerStoreTest, AsksOnceAboutAnOrdinaryLayer) {
  Start();
  const std::string blob(100'000, 'x');
  registry_.Put(blob);
  const LayerRequest request{.reference = registry_.Image(), .digest = DigestOf(blob)};
  EXPECT_EQ(ReasonOf(GetStatus(request)), FallbackReason::kNotLazy);
  EXPECT_EQ(ReasonOf(GetStatus(request)), FallbackReason::kNotLazy);
  ASSERT_THAT(registry_.requests(), SizeIs(1));
  EXPECT_EQ(registry_.requests()[0].Header("range"), "bytes=-72");
}

TEST_F(LayerStoreTest, AsksAgainAfterAFailureThatMayPass) {
  Start();
  const BuiltLayer layer = Add("one");
  registry_.Intercept([](const ServerRequest&) { return ServerReply{.status = 503}; });
  EXPECT_EQ(ReasonOf(GetStatus(Ask(layer))), FallbackReason::kRegistry);
  registry_.Intercept(nullptr);
  EXPECT_EQ(GetNumber(layer), 1U);
  EXPECT_THAT(Fallbacks(), IsEmpty());
}

TEST_F(LayerStoreTest, EverybodyJoinsOneResolve) {
  Start();
  const BuiltLayer layer = Add("one");
  registry_.Hold();
  std::vector<std::future<uint64_t>> callers;
  callers.reserve(8);
  for (int i = 0; i < 8; ++i) {
    callers.push_back(std::async(std::launch::async, [&] { return GetNumber(layer); }));
  }
  EXPECT_TRUE(Eventually([&] { return registry_.requests().size() == 1; }));
  registry_.Release();
  for (auto& caller : callers) {
    EXPECT_EQ(caller.get(), 1U);
  }
  EXPECT_THAT(registry_.requests(), SizeIs(1));
  EXPECT_THAT(presenter_.shown(), SizeIs(1));
}

TEST_F(LayerStoreTest, KeepsAResultThatComesTooLate) {
  options_.resolve_timeout = std::chrono::seconds(2);  // as long again it may take from Release on
  Start();
  const BuiltLayer layer = Add("one");
  registry_.Hold();
  const Status status = GetStatus(Ask(layer));
  EXPECT_THAT(status, StatusIs(StatusCode::kDeadlineExceeded));
  EXPECT_EQ(ReasonOf(status), FallbackReason::kTimeout);
  EXPECT_THAT(Fallbacks(), SizeIs(1));
  registry_.Release();
  EXPECT_TRUE(Eventually([&] { return OnDisk(1) && presenter_.shown().size() == 1; }));
  EXPECT_EQ(GetNumber(layer), 1U);
  EXPECT_THAT(registry_.requests(), SizeIs(1));
}

TEST_F(LayerStoreTest, AnnouncedLayersAreThereWhenTheyAreAskedFor) {
  Start();
  std::vector<BuiltLayer> layers;
  std::vector<LayerRequest> requests;
  requests.reserve(20);
  for (int i = 0; i < 20; ++i) {
    layers.push_back(Add("file" + std::to_string(i)));
    requests.push_back(Ask(layers.back()));
  }
  store_->Announce(requests);
  EXPECT_TRUE(Eventually([&] { return presenter_.shown().size() == layers.size(); }));
  registry_.Intercept([](const ServerRequest&) { return ServerReply{.status = 503}; });
  for (const BuiltLayer& layer : layers) {
    GetNumber(layer);
  }
  EXPECT_THAT(registry_.requests(), SizeIs(layers.size()));
}

// containerd names the other layers of an image by their digests alone.
TEST_F(LayerStoreTest, LayersAnnouncedWithoutTheirPinAreAdoptedByIt) {
  Start();
  std::vector<BuiltLayer> layers;
  std::vector<LayerRequest> requests;
  for (int i = 0; i < 10; ++i) {
    layers.push_back(Add("file" + std::to_string(i)));
    requests.push_back(Ask(layers.back()));
    requests.back().annotations.clear();
  }
  store_->Announce(requests);
  EXPECT_TRUE(Eventually([&] { return presenter_.shown().size() == layers.size(); }));
  for (const BuiltLayer& layer : layers) {
    GetNumber(layer);
  }
  EXPECT_THAT(registry_.requests(), SizeIs(layers.size()));
  EXPECT_THAT(Fallbacks(), SizeIs(0));
}

TEST_F(LayerStoreTest, LayerAnnouncedWithoutItsPinIsJoinedWhileItIsOnItsWay) {
  Start();
  const BuiltLayer layer = Add("file");
  LayerRequest announced = Ask(layer);
  announced.annotations.clear();
  registry_.Hold();
  store_->Announce({announced});
  EXPECT_TRUE(Eventually([&] { return registry_.requests().size() == 1; }));
  auto caller = std::async(std::launch::async, [&] { return GetStatus(Ask(layer)); });
  registry_.Release();
  EXPECT_THAT(caller.get(), IsOk());
  EXPECT_THAT(registry_.requests(), SizeIs(1));
}

TEST_F(LayerStoreTest, LayerAnnouncedWithoutItsPinIsNotGivenToAnother) {
  Start();
  const BuiltLayer layer = Add("file");
  LayerRequest announced = Ask(layer);
  announced.annotations.clear();
  store_->Announce({announced});
  EXPECT_TRUE(Eventually([&] { return presenter_.shown().size() == 1; }));
  LayerRequest other = Ask(layer);
  for (auto& [name, value] : other.annotations) {
    value = "sha256:" + std::string(64, 'e');
  }
  EXPECT_THAT(GetStatus(other), StatusIs(StatusCode::kDataLoss));
  // And none at all is refused as ever.
  EXPECT_EQ(ReasonOf(GetStatus(announced)), FallbackReason::kNoPin);
}

TEST_F(LayerStoreTest, LayerAnnouncedWithoutItsPinThatCannotBeHadIsNoFallback) {
  Start();
  LayerRequest announced = Ask(Add("file"));
  const LayerRequest asked = announced;
  announced.annotations.clear();
  registry_.Intercept([](const ServerRequest&) { return ServerReply{.status = 404}; });
  store_->Announce({announced});
  EXPECT_TRUE(Eventually([&] { return !registry_.requests().empty(); }));
  registry_.Intercept({});
  EXPECT_THAT(GetStatus(asked), IsOk());
  EXPECT_THAT(Fallbacks(), SizeIs(0));
}

TEST_F(LayerStoreTest, AtMostEightAnnouncedAreAskedForAtOnce) {
  Start();
  std::vector<LayerRequest> requests;
  requests.reserve(12);
  for (int i = 0; i < 12; ++i) {
    requests.push_back(Ask(Add("file" + std::to_string(i))));
  }
  registry_.Hold();
  store_->Announce(requests);
  EXPECT_TRUE(Eventually([&] { return registry_.requests().size() == 8; }));
  // One that somebody waits for does not wait for those.
  auto caller = std::async(std::launch::async, [&] { return GetStatus(requests.back()); });
  EXPECT_TRUE(Eventually([&] { return registry_.requests().size() == 9; }));
  registry_.Release();
  EXPECT_THAT(caller.get(), IsOk());
  EXPECT_TRUE(Eventually([&] { return presenter_.shown().size() == requests.size(); }));
  EXPECT_THAT(registry_.requests(), SizeIs(requests.size()));
}

TEST_F(LayerStoreTest, TenLayersTakeAboutTwoRoundTrips) {
  Start();
  std::vector<LayerRequest> requests;
  requests.reserve(10);
  for (int i = 0; i < 10; ++i) {
    requests.push_back(Ask(Add("file" + std::to_string(i))));
  }
  registry_.Delay(milliseconds(20));
  const auto begin = std::chrono::steady_clock::now();
  store_->Announce({requests.begin() + 1, requests.end()});
  for (const LayerRequest& request : requests) {
    EXPECT_THAT(GetStatus(request), IsOk());
  }
  const auto took = std::chrono::steady_clock::now() - begin;
  RecordProperty("milliseconds", std::to_string(took / milliseconds(1)));
  EXPECT_THAT(registry_.requests(), SizeIs(10));
}

TEST_F(LayerStoreTest, PrefetchesToTheLandmark) {
  options_.prefetch_bytes = 7;
  Start();
  const BuiltLayer layer = BuildLayer({{.name = "first", .content = "a"},
                                       {.name = ".prefetch.landmark", .content = "\x0f"},
                                       {.name = "second", .content = "b"}});
  registry_.Put(layer.blob);
  LayerRequest request = Ask(layer);
  request.prefetch_bytes = 9;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto use, store_->Get(request));
  const uint64_t end = use->layer().image().source().prefetch_end;
  EXPECT_GT(end, 0U);
  EXPECT_THAT(filler_.prefetched(), ElementsAre(FakeFiller::Call(1, end)));
}

TEST_F(LayerStoreTest, PrefetchesWhatTheLabelSaysElseTheConfiguration) {
  options_.prefetch_bytes = 7;
  Start();
  LayerRequest request = Ask(Add("one"));
  request.prefetch_bytes = 9;
  EXPECT_THAT(GetStatus(request), IsOk());
  EXPECT_THAT(GetStatus(Ask(Add("two"))), IsOk());
  EXPECT_THAT(filler_.prefetched(), ElementsAre(FakeFiller::Call(1, 9), FakeFiller::Call(2, 7)));
}

TEST_F(LayerStoreTest, PrefetchesNothingOfALayerThatSaysSo) {
  options_.prefetch_bytes = 7;
  Start();
  const BuiltLayer layer = BuildLayer(
      {{.name = ".no.prefetch.landmark", .content = "\x0f"}, {.name = "second", .content = "b"}});
  registry_.Put(layer.blob);
  GetNumber(layer);
  EXPECT_THAT(filler_.prefetched(), IsEmpty());
}

TEST_F(LayerStoreTest, FetchesTheRestOfLayersThatAreUsedOnce) {
  Start();
  const BuiltLayer used = Add("used");
  store_->Announce({Ask(Add("announced"))});
  EXPECT_TRUE(Eventually([&] { return presenter_.shown().size() == 1; }));
  const uint64_t number = GetNumber(used);
  GetNumber(used);
  EXPECT_THAT(filler_.fetched(), ElementsAre(number));
}

TEST_F(LayerStoreTest, FetchesNothingInTheBackgroundWhenThatIsOff) {
  options_.background_fetch = false;
  Start();
  GetNumber(Add("one"));
  EXPECT_THAT(filler_.fetched(), IsEmpty());
}

TEST_F(LayerStoreTest, ALayerThatCannotBeShownIsKeptAndTriedAgain) {
  Start();
  const BuiltLayer layer = Add("one");
  presenter_.FailWith(MakeStatus(StatusCode::kFailedPrecondition, "no mount"));
  EXPECT_EQ(ReasonOf(GetStatus(Ask(layer))), FallbackReason::kPresenter);
  presenter_.FailWith(OkStatus());
  EXPECT_EQ(GetNumber(layer), 1U);
  EXPECT_THAT(registry_.requests(), SizeIs(1));
}

TEST_F(LayerStoreTest, FindsByNumber) {
  Start();
  const uint64_t number = GetNumber(Add("one"));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto use, store_->Find(number));
  EXPECT_EQ(use->number(), number);
  EXPECT_THAT(store_->Find(number + 1), StatusIs(StatusCode::kNotFound));
}

TEST_F(LayerStoreTest, SizeIsWhatTheDiskHoldsAndTheTreeHas) {
  Start();
  const uint64_t number = GetNumber(Add("one"));
  STRATA_ASSERT_OK_AND_ASSIGN(const LayerStore::Size size, store_->SizeOf(number));
  EXPECT_EQ(size.inodes, 3U);
  EXPECT_EQ(size.bytes, *filler_.layer(number)->image().AllocatedBytes());
  EXPECT_GT(size.bytes, 0U);
  EXPECT_THAT(store_->SizeOf(number + 1), StatusIs(StatusCode::kNotFound));
}

TEST_F(LayerStoreTest, ListsLayersAndFallbacks) {
  Start();
  const BuiltLayer layer = Add("one");
  const uint64_t number = GetNumber(layer);
  filler_.layer(number)->last_error = MakeStatus(StatusCode::kUnavailable, "host is down");
  LayerRequest missing = Ask(layer);
  missing.digest = "sha256:" + std::string(64, 'c');
  EXPECT_EQ(ReasonOf(GetStatus(missing)), FallbackReason::kRegistry);
  const std::vector<LayerStore::Row> rows = store_->List();
  ASSERT_THAT(rows, SizeIs(2));
  EXPECT_EQ(rows[0].number, number);
  EXPECT_EQ(rows[0].presenter, "fake");
  EXPECT_EQ(rows[0].chunks, 1U);
  EXPECT_EQ(rows[0].detail, "host is down");
  EXPECT_EQ(rows[1].number, 0U);
  EXPECT_EQ(rows[1].digest, missing.digest);
  EXPECT_EQ(rows[1].reason, FallbackReason::kRegistry);
  EXPECT_THAT(rows[1].detail, HasSubstr(missing.digest));
}

TEST_F(LayerStoreTest, RefusesWhatItCannotRead) {
  Start();
  const BuiltLayer layer = Add("one");
  LayerRequest request = Ask(layer);
  request.reference = "no host";
  EXPECT_THAT(GetStatus(request), StatusIs(StatusCode::kInvalidArgument));
  request = Ask(layer);
  request.digest = "sha256:../../etc";
  EXPECT_THAT(GetStatus(request), StatusIs(StatusCode::kInvalidArgument));
  request = Ask(layer);
  request.annotations[kTocDigest] = "what";
  EXPECT_EQ(ReasonOf(GetStatus(request)), FallbackReason::kBadLayer);
  EXPECT_THAT(registry_.requests(), IsEmpty());
}

// What a registry can answer instead of the layer.
struct BadAnswer {
  const char* name;
  std::function<ServerReply(const ServerRequest&, std::string blob, const BuiltLayer&)> reply;
  FallbackReason reason;
};
class LayerStoreBadAnswerTest : public LayerStoreFixture,
                                public ::testing::WithParamInterface<BadAnswer> {};

TEST_P(LayerStoreBadAnswerTest, IsNoLayer) {
  Start();
  const BuiltLayer layer = Add("one");
  registry_.Intercept(
      [&](const ServerRequest& request) { return GetParam().reply(request, layer.blob, layer); });
  const Status status = GetStatus(Ask(layer));
  EXPECT_EQ(ReasonOf(status), GetParam().reason) << status.ToString();
  EXPECT_FALSE(OnDisk(1));
  ASSERT_THAT(Fallbacks(), SizeIs(1));
  EXPECT_EQ(Fallbacks()[0].reason, GetParam().reason);
}
INSTANTIATE_TEST_SUITE_P(
    All, LayerStoreBadAnswerTest,
    ::testing::Values(
        BadAnswer{"footer",
                  [](const ServerRequest& request, std::string blob, const BuiltLayer&) {
                    blob[blob.size() - 20] ^= 1;
                    return HttpServer::Range(request, blob);
                  },
                  FallbackReason::kBadLayer},
        BadAnswer{"toc",
                  [](const ServerRequest& request, std::string blob, const BuiltLayer& layer) {
                    blob[layer.toc_offset + layer.toc_bytes / 2] ^= 1;
                    return HttpServer::Range(request, blob);
                  },
                  FallbackReason::kBadLayer},
        BadAnswer{"cut",
                  [](const ServerRequest& request, const std::string& blob, const BuiltLayer&) {
                    ServerReply reply = HttpServer::Range(request, blob);
                    reply.cut_after = 10;
                    return reply;
                  },
                  FallbackReason::kRegistry},
        BadAnswer{"html",
                  [](const ServerRequest&, const std::string&, const BuiltLayer&) {
                    return ServerReply{.body = "<html>please log in</html>"};
                  },
                  FallbackReason::kBadLayer},
        BadAnswer{"nothing",
                  [](const ServerRequest&, const std::string&, const BuiltLayer&) {
                    return ServerReply{};
                  },
                  FallbackReason::kBadLayer},
        BadAnswer{"unauthorized",
                  [](const ServerRequest&, const std::string&, const BuiltLayer&) {
                    return ServerReply{.status = 403};
                  },
                  FallbackReason::kCredentials},
        BadAnswer{"gone",
                  [](const ServerRequest&, const std::string&, const BuiltLayer&) {
                    return ServerReply{.status = 404};
                  },
                  FallbackReason::kRegistry}),
    [](const auto& one) { return one.param.name; });

TEST_F(LayerStoreTest, RefusesATocThatIsLongerThanConfigured) {
  options_.limits.toc_bytes = 100;
  Start();
  EXPECT_EQ(ReasonOf(GetStatus(Ask(Add("one")))), FallbackReason::kLimits);
}

TEST_F(LayerStoreTest, AFullDiskIsAReasonOfItsOwn) {
  Start();
  const BuiltLayer layer = Add("one");
  // Where the layer's folder is to be made, a file that is in its way.
  ASSERT_EQ(::symlink("/dev/full", (options_.root + "/layers/new-1").c_str()), 0);
  ASSERT_EQ(::mkdir((options_.root + "/layers/1").c_str(), 0700), 0);
  EXPECT_EQ(ReasonOf(GetStatus(Ask(layer))), FallbackReason::kDisk);
}

TEST(LayerStoreOptionsTest, WantAnAbsoluteRoot) {
  AnyoneCredentials credentials;
  const auto http = *HttpClient::Create({});
  const auto blobs = *BlobClient::Create({}, credentials, *http);
  FakeFiller filler;
  FakePresenter presenter;
  EXPECT_THAT(LayerStore::Open({.root = "relative"}, *blobs, filler, {.fuse = &presenter}),
              StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace strata::testing
