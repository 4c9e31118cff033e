// SPDX-License-Identifier: Apache-2.0
//
// The filler over HTTP, with the real BlobClient.
#include <gtest/gtest.h>

#include <atomic>

#include "snapshotters/lazy/filler.h"
#include "tests/snapshotters/lazy/fill_fixture.h"
#include "tests/support/http_server.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::Eventually;
using testing::HttpServer;
using testing::IsOk;
using testing::ReadImage;
using testing::ServerReply;
using testing::ServerRequest;
using testing::StatusIs;
using testing::TestLayer;
using testing::Wanted;

class NoCredentials : public CredentialSource {
 public:
  StatusOr<std::optional<Credential>> Find(std::string_view /*host*/,
                                           const Reference& /*reference*/) override {
    return std::nullopt;
  }
};

class FillerHttpTest : public ::testing::Test {
 protected:
  void Start(const HttpServer& server) {
    BlobClient::Options options;
    options.retry = {.attempts = 2,
                     .first_delay = std::chrono::milliseconds(1),
                     .ceiling = std::chrono::milliseconds(2)};
    STRATA_ASSERT_OK_AND_ASSIGN(http_, HttpClient::Create({}));
    STRATA_ASSERT_OK_AND_ASSIGN(client_, BlobClient::Create(options, credentials_, *http_));
    auto blob = client_->Open(
        {.reference = {.host = server.host(), .repository = "fill"}, .digest = layer_.digest()});
    STRATA_ASSERT_OK_AND_ASSIGN(filler_, Filler::Create(options_, nullptr));
    fill_ = filler_->Add(image_, std::move(blob), [this](FillLayer&) { complete_ = true; });
  }
  void TearDown() override { filler_.reset(); }

  void ExpectAllFilled() {
    for (uint32_t i = 0; i < image_->chunks().chunks(); ++i) {
      const TableChunk chunk = image_->chunks().chunk(i);
      EXPECT_EQ(ReadImage(*image_, chunk.image_offset, chunk.bytes), layer_.ChunkContent(i));
    }
  }

  const TestLayer layer_{{{3'000'000, 100'000}, {777, 777}, {500'000, 64'000}}};
  const std::shared_ptr<LayerImage> image_ = layer_.Open();
  Filler::Options options_{.patience = testing::kGenerous, .request_bytes = 200'000};
  NoCredentials credentials_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<BlobClient> client_;
  std::atomic<bool> complete_{false};
  std::unique_ptr<Filler> filler_;
  std::shared_ptr<FillLayer> fill_;
};

TEST_F(FillerHttpTest, FillsALayer) {
  HttpServer server(
      [this](const ServerRequest& request) { return HttpServer::Range(request, layer_.blob()); });
  Start(server);
  filler_->FetchAll(fill_);
  EXPECT_TRUE(Eventually([this] { return complete_.load(); }));
  ExpectAllFilled();
  EXPECT_EQ(filler_->counters().blob_bytes, layer_.span_bytes());
}

TEST_F(FillerHttpTest, SurvivesAServerThatFailsAndCuts) {
  std::atomic<int> count{0};
  HttpServer server([&](const ServerRequest& request) {
    ServerReply reply = HttpServer::Range(request, layer_.blob());
    const int number = ++count;
    if (number % 3 == 0) {
      reply = {.status = 503};
    } else if (number % 3 == 1) {
      reply.cut_after = reply.body.size() / 2;
    }
    return reply;
  });
  Start(server);
  filler_->FetchAll(fill_);
  const uint64_t begin = image_->chunks().chunk(0).image_offset;
  const uint64_t bytes = image_->chunks().image_bytes() - begin;
  for (int i = 0; i < 10; ++i) {
    const auto at = static_cast<uint64_t>(i);
    EXPECT_THAT(Wanted(*filler_, fill_, begin + bytes / 10 * at, bytes / 10).Get().status, IsOk());
  }
  EXPECT_THAT(Wanted(*filler_, fill_, begin, bytes).Get().status, IsOk());
  ExpectAllFilled();
}

TEST_F(FillerHttpTest, ServesASequentialReader) {
  HttpServer server(
      [this](const ServerRequest& request) { return HttpServer::Range(request, layer_.blob()); });
  Start(server);
  const uint64_t end = image_->chunks().image_bytes();
  constexpr uint64_t kRead = 32'768;
  for (uint64_t at = image_->chunks().chunk(0).image_offset; at < end; at += kRead) {
    ASSERT_THAT(Wanted(*filler_, fill_, at, kRead).Get().status, IsOk());
  }
  ExpectAllFilled();
  EXPECT_EQ(filler_->counters().blob_bytes, layer_.span_bytes());
}

TEST_F(FillerHttpTest, NamesTheHostThatSaidNo) {
  HttpServer server([](const ServerRequest& /*request*/) { return ServerReply{.status = 404}; });
  Start(server);
  const Status status =
      Wanted(*filler_, fill_, image_->chunks().chunk(0).image_offset, 1).Get().status;
  EXPECT_THAT(status, StatusIs(StatusCode::kNotFound, ::testing::HasSubstr(server.host())));
}

TEST_F(FillerHttpTest, EndsWhileTheServerIsSilent) {
  HttpServer server([](const ServerRequest& /*request*/) { return ServerReply{.stall = true}; });
  Start(server);
  Wanted want(*filler_, fill_, image_->chunks().chunk(0).image_offset, 1);
  filler_->FetchAll(fill_);
  filler_.reset();
  EXPECT_THAT(want.Get().status, StatusIs(StatusCode::kCancelled));
}

}  // namespace
}  // namespace strata
