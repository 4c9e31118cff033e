// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/blob_client.h"

#include <atomic>
#include <future>
#include <string>

#include "snapshotters/registry/blob_request.h"
#include "tests/support/http_server.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::HttpServer;
using testing::IsOk;
using testing::ServerReply;
using testing::ServerRequest;
using testing::StatusIs;

constexpr seconds kGenerous{60};

class FixedCredentials : public CredentialSource {
 public:
  StatusOr<std::optional<Credential>> Find(std::string_view /*host*/,
                                           const Reference& /*reference*/) override {
    return credential;
  }
  std::optional<Credential> credential;
};

class CollectingRange : public RangeSink {
 public:
  explicit CollectingRange(uint64_t offset) : next_(offset) {}
  bool OnData(uint64_t offset, std::string_view bytes) override {
    in_order_ = in_order_ && offset == next_;
    next_ += bytes.size();
    bytes_ += bytes;
    return true;
  }
  void OnDone(Status status) override { done_.set_value(std::move(status)); }
  StatusOr<std::string> Wait() {
    const Status status = done_.get_future().get();
    EXPECT_TRUE(in_order_);
    if (!status.ok()) {
      return status;
    }
    return bytes_;
  }

 private:
  uint64_t next_;
  bool in_order_ = true;
  std::string bytes_;
  std::promise<Status> done_;
};

std::string Content(size_t size) {
  std::string content(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    content[i] = static_cast<char>((i * 7 + i / 251) & 0x7fU);
  }
  return content;
}

class BlobClientTest : public ::testing::Test {
 protected:
  BlobClientTest() {
    options_.retry = {.attempts = 3, .first_delay = milliseconds(1), .ceiling = milliseconds(2)};
    options_.random = [] { return 0.5; };
  }
  ~BlobClientTest() override { http_.reset(); }

  std::shared_ptr<Blob> Open(const HttpServer& server, uint64_t size = 0) {
    if (client_ == nullptr) {
      client_ = *BlobClient::Create(options_, credentials_, *http_);
    }
    return client_->Open({.reference = {.host = server.host(), .repository = "a/b"},
                          .digest = "sha256:" + std::string(64, 'a'),
                          .size = size});
  }
  static StatusOr<std::string> Fetch(const std::shared_ptr<Blob>& blob, uint64_t offset,
                                     uint64_t length, milliseconds limit = kGenerous) {
    const auto sink = std::make_shared<CollectingRange>(offset);
    blob->FetchRange(offset, length, FetchClass::kOnDemand, steady_clock::now() + limit, sink);
    return sink->Wait();
  }
  static StatusOr<BlobTail> Tail(const std::shared_ptr<Blob>& blob, uint64_t bytes) {
    std::promise<StatusOr<BlobTail>> done;
    blob->FetchTail(bytes, steady_clock::now() + kGenerous,
                    [&done](StatusOr<BlobTail> tail) { done.set_value(std::move(tail)); });
    return done.get_future().get();
  }

  const std::string content_ = Content(100'000);
  BlobClient::Options options_;
  FixedCredentials credentials_;
  std::unique_ptr<HttpClient> http_ = *HttpClient::Create({});
  std::unique_ptr<BlobClient> client_;
};

TEST_F(BlobClientTest, FetchesARange) {
  HttpServer server([&](const ServerRequest& r) { return HttpServer::Range(r, content_); });
  EXPECT_EQ(*Fetch(Open(server), 1000, 5000), content_.substr(1000, 5000));
  EXPECT_EQ(server.requests()[0].target, "/v2/a/b/blobs/sha256:" + std::string(64, 'a'));
  EXPECT_EQ(server.requests()[0].Header("accept-encoding"), "identity");
}

TEST_F(BlobClientTest, TailIsOneSuffixRequest) {
  HttpServer server([&](const ServerRequest& r) { return HttpServer::Range(r, content_); });
  const auto tail = Tail(Open(server), 100);
  ASSERT_THAT(tail, IsOk());
  EXPECT_EQ(tail->blob_size, content_.size());
  EXPECT_EQ(tail->bytes, content_.substr(content_.size() - 100));
  EXPECT_EQ(server.requests().size(), 1U);
}

TEST_F(BlobClientTest, AManifestIsAskedForByItsTag) {
  HttpServer server([&](const ServerRequest&) { return ServerReply{.body = "{\"layers\":[]}"}; });
  Open(server);  // makes the client
  const auto manifest =
      client_->Open({.reference = {.host = server.host(), .repository = "a/b"}, .manifest = "1-x"});
  EXPECT_EQ(Tail(manifest, 1'000'000)->bytes, "{\"layers\":[]}");
  ASSERT_EQ(server.requests().size(), 1U);
  EXPECT_EQ(server.requests()[0].target, "/v2/a/b/manifests/1-x");
  EXPECT_NE(server.requests()[0].Header("accept").find("oci.image.manifest.v1+json"),
            std::string::npos);
}

TEST_F(BlobClientTest, AManifestNeedsAValidTag) {
  HttpServer server([&](const ServerRequest&) { return ServerReply{}; });
  Open(server);
  const auto manifest = client_->Open(
      {.reference = {.host = server.host(), .repository = "a/b"}, .manifest = "../../x"});
  EXPECT_THAT(Tail(manifest, 100), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_TRUE(server.requests().empty());
}

TEST_F(BlobClientTest, TailOfAShorterBlobIsAllOfIt) {
  HttpServer server([&](const ServerRequest& r) { return HttpServer::Range(r, content_); });
  EXPECT_EQ(Tail(Open(server), 1'000'000)->bytes, content_);
}

class SuffixRefusalTest : public BlobClientTest, public ::testing::WithParamInterface<int> {};

TEST_P(SuffixRefusalTest, FallsBackToAnExplicitRange) {
  HttpServer server([&](const ServerRequest& r) {
    return r.Header("range").starts_with("bytes=-") ? ServerReply{.status = GetParam()}
                                                    : HttpServer::Range(r, content_);
  });
  const auto tail = Tail(Open(server), 100);
  ASSERT_THAT(tail, IsOk());
  EXPECT_EQ(tail->blob_size, content_.size());
  EXPECT_EQ(tail->bytes, content_.substr(content_.size() - 100));
}
INSTANTIATE_TEST_SUITE_P(Statuses, SuffixRefusalTest, ::testing::Values(400, 416, 501));

TEST_F(BlobClientTest, WholeAnswerToASuffixIsCutOffWhenTheBlobIsBig) {
  const std::string big = Content(size_t{32} << 20);
  HttpServer server([&](const ServerRequest& r) {
    return r.Header("range").starts_with("bytes=-") ? ServerReply{.body = big}
                                                    : HttpServer::Range(r, big);
  });
  EXPECT_EQ(Tail(Open(server), 100)->bytes, big.substr(big.size() - 100));
  EXPECT_EQ(server.requests().size(), 2U);
}

TEST_F(BlobClientTest, WholeAnswersAreSkippedToTheRange) {
  HttpServer server([&](const ServerRequest& /*r*/) { return ServerReply{.body = content_}; });
  EXPECT_EQ(*Fetch(Open(server), 500, 70'000), content_.substr(500, 70'000));
  EXPECT_EQ(Tail(Open(server), 10)->bytes, content_.substr(content_.size() - 10));
}

TEST_F(BlobClientTest, ServerWithoutRangesIsNotReadForEver) {
  const std::string big = Content(size_t{4} << 20);
  HttpServer server([&](const ServerRequest& /*r*/) { return ServerReply{.body = big}; });
  EXPECT_THAT(Fetch(Open(server), size_t{3} << 20, 10), StatusIs(StatusCode::kUnimplemented));
}

TEST_F(BlobClientTest, WrongRangesAreDataLossThatNamesTheHost) {
  for (const std::string value :
       {"bytes 0-9/100000", "bytes 1000-1008/100000", "bytes 1000-1009/5", "items 1000-1009/100000",
        "bytes */100000", "bytes 18446744073709551615-18446744073709551615/*", ""}) {
    HttpServer server([&](const ServerRequest& /*r*/) {
      return ServerReply{
          .status = 206, .headers = {{"Content-Range", value}}, .body = std::string(10, 'x')};
    });
    EXPECT_THAT(Fetch(Open(server), 1000, 10),
                StatusIs(StatusCode::kDataLoss, ::testing::HasSubstr(server.host())))
        << value;
  }
}

TEST_F(BlobClientTest, MultipartAnswerIsDataLoss) {
  HttpServer server([&](const ServerRequest& /*r*/) {
    return ServerReply{.status = 206,
                       .headers = {{"Content-Type", "multipart/byteranges; boundary=X"}},
                       .body = "--X\r\nContent-Range: bytes 0-0/1\r\n\r\nx\r\n--X--"};
  });
  EXPECT_THAT(Fetch(Open(server), 0, 1), StatusIs(StatusCode::kDataLoss));
}

TEST_F(BlobClientTest, TooManyAndTooFewBytesAreDataLoss) {
  for (const size_t length : {9U, 11U}) {
    HttpServer server([&](const ServerRequest& /*r*/) {
      return ServerReply{.status = 206,
                         .headers = {{"Content-Range", "bytes 0-9/100"}},
                         .body = std::string(length, 'x')};
    });
    EXPECT_THAT(Fetch(Open(server), 0, 10), StatusIs(StatusCode::kDataLoss)) << length;
  }
}

TEST_F(BlobClientTest, BlobOfAnotherSizeIsDataLoss) {
  HttpServer server([&](const ServerRequest& r) { return HttpServer::Range(r, content_); });
  EXPECT_THAT(Fetch(Open(server, content_.size() + 1), 0, 10), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(Fetch(Open(server, 100), 95, 10), StatusIs(StatusCode::kOutOfRange));
}

TEST_F(BlobClientTest, RetryContinuesBehindWhatCame) {
  std::atomic<int> count{0};
  HttpServer server([&](const ServerRequest& r) {
    ServerReply reply = HttpServer::Range(r, content_);
    if (++count == 1) {
      reply.cut_after = 3000;
    }
    return reply;
  });
  EXPECT_EQ(*Fetch(Open(server), 1000, 9000), content_.substr(1000, 9000));
  EXPECT_EQ(server.requests().back().Header("range"), "bytes=4000-9999");
  EXPECT_EQ(client_->counters().retries, 1U);
}

TEST_F(BlobClientTest, GivesUpAfterTheLastAttempt) {
  HttpServer server([](const ServerRequest& /*r*/) { return ServerReply{.status = 503}; });
  EXPECT_THAT(Fetch(Open(server), 0, 10), StatusIs(StatusCode::kUnavailable));
  EXPECT_EQ(server.requests().size(), 3U);
}

TEST_F(BlobClientTest, MissingBlobIsNotTriedAgain) {
  HttpServer server([](const ServerRequest& /*r*/) { return ServerReply{.status = 404}; });
  EXPECT_THAT(Fetch(Open(server), 0, 10), StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(server.requests().size(), 1U);
}

TEST_F(BlobClientTest, RetryAfterBeyondTheDeadlineEndsAtOnce) {
  HttpServer server([](const ServerRequest& /*r*/) {
    return ServerReply{.status = 429, .headers = {{"Retry-After", "3600"}}};
  });
  EXPECT_THAT(Fetch(Open(server), 0, 10), StatusIs(StatusCode::kUnavailable));
  EXPECT_EQ(server.requests().size(), 1U);
}

TEST_F(BlobClientTest, DeadlineEndsAStalledRange) {
  HttpServer server([](const ServerRequest& /*r*/) { return ServerReply{.stall = true}; });
  EXPECT_THAT(Fetch(Open(server), 0, 10, milliseconds(50)),
              StatusIs(StatusCode::kDeadlineExceeded));
  http_.reset();
}

TEST_F(BlobClientTest, RedirectIsKeptAndGetsNoSecrets) {
  credentials_.credential = Credential{.username = "u", .secret = "p"};
  HttpServer cdn([&](const ServerRequest& r) { return HttpServer::Range(r, content_); });
  HttpServer server([&](const ServerRequest& r) {
    if (r.Header("authorization").empty()) {
      return ServerReply{.status = 401, .headers = {{"WWW-Authenticate", "Basic realm=\"x\""}}};
    }
    return ServerReply{.status = 307,
                       .headers = {{"Location", cdn.url() + "/b?X-Amz-Expires=900"}}};
  });
  options_.hosts.origins[server.host()].headers = {{"X-Key", "k"}};
  const auto blob = Open(server);
  EXPECT_EQ(*Fetch(blob, 0, 10), content_.substr(0, 10));
  EXPECT_EQ(*Fetch(blob, 10, 10), content_.substr(10, 10));
  EXPECT_EQ(server.requests().size(), 2U);  // 401, 307
  EXPECT_EQ(server.requests()[1].Header("x-key"), "k");
  ASSERT_EQ(cdn.requests().size(), 2U);
  for (const ServerRequest& request : cdn.requests()) {
    EXPECT_EQ(request.Header("authorization"), "");
    EXPECT_EQ(request.Header("x-key"), "");
  }
}

TEST_F(BlobClientTest, RefusedTargetIsAskedForAgainOnce) {
  std::atomic<int> count{0};
  HttpServer cdn([&](const ServerRequest& r) {
    return ++count == 2 ? ServerReply{.status = 403} : HttpServer::Range(r, content_);
  });
  HttpServer server([&](const ServerRequest& /*r*/) {
    return ServerReply{.status = 307, .headers = {{"Location", cdn.url() + "/b"}}};
  });
  const auto blob = Open(server);
  ASSERT_THAT(Fetch(blob, 0, 10), IsOk());
  EXPECT_EQ(*Fetch(blob, 10, 10), content_.substr(10, 10));
  EXPECT_EQ(server.requests().size(), 2U);
  EXPECT_EQ(cdn.requests().size(), 3U);
}

TEST_F(BlobClientTest, RedirectsEndAfterFive) {
  HttpServer server([](const ServerRequest& /*r*/) {
    return ServerReply{.status = 302, .headers = {{"Location", "/again"}}};
  });
  EXPECT_THAT(Fetch(Open(server), 0, 10), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_EQ(server.requests().size(), 6U);
}

TEST_F(BlobClientTest, OneTokenServesManyBlobsAndRequests) {
  HttpServer tokens(
      [](const ServerRequest& /*r*/) { return ServerReply{.body = R"({"token": "T"})"}; });
  HttpServer server([&](const ServerRequest& r) {
    if (r.Header("authorization") != "Bearer T") {
      return ServerReply{
          .status = 401,
          .headers = {{"WWW-Authenticate", "Bearer realm=\"" + tokens.url() + "/token\""}}};
    }
    return HttpServer::Range(r, content_);
  });
  ASSERT_THAT(Fetch(Open(server), 0, 10), IsOk());
  const size_t before = server.requests().size();
  ASSERT_THAT(Tail(Open(server), 10), IsOk());
  EXPECT_EQ(server.requests().size(), before + 1);  // the token went with the first request
  EXPECT_EQ(tokens.requests().size(), 1U);
}

TEST_F(BlobClientTest, OneRequestFindsOutForAllHowARegistryWantsToBeAsked) {
  constexpr size_t kBlobs = 8;
  HttpServer tokens(
      [](const ServerRequest& /*r*/) { return ServerReply{.body = R"({"token": "T"})"}; });
  HttpServer server([&](const ServerRequest& r) {
    if (r.Header("authorization") != "Bearer T") {
      return ServerReply{
          .status = 401,
          .headers = {{"WWW-Authenticate", "Bearer realm=\"" + tokens.url() + "/token\""}}};
    }
    return HttpServer::Range(r, content_);
  });
  std::vector<std::shared_ptr<Blob>> blobs;
  std::vector<std::shared_ptr<CollectingRange>> ranges;
  for (size_t i = 0; i < kBlobs; ++i) {
    blobs.push_back(Open(server));
    ranges.push_back(std::make_shared<CollectingRange>(0));
    blobs.back()->FetchRange(0, 10, FetchClass::kResolve, steady_clock::now() + kGenerous,
                             ranges.back());
  }
  for (const auto& range : ranges) {
    EXPECT_EQ(range->Wait().value_or(""), content_.substr(0, 10));
  }
  EXPECT_EQ(server.requests().size(), kBlobs + 1);  // one was refused
  EXPECT_EQ(tokens.requests().size(), 1U);
}

TEST_F(BlobClientTest, RequestsThatWaitForAnAnswerGoAheadWhenThereIsNone) {
  HttpServer server([&](const ServerRequest& r) {
    // The first one is never answered.
    return r.Header("range") == "bytes=0-9" ? ServerReply{.stall = true}
                                            : HttpServer::Range(r, content_);
  });
  const auto first = std::make_shared<CollectingRange>(0);
  const auto second = std::make_shared<CollectingRange>(10);
  const auto blob = Open(server);
  blob->FetchRange(0, 10, FetchClass::kOnDemand, steady_clock::now() + kGenerous, first);
  blob->FetchRange(10, 10, FetchClass::kOnDemand, steady_clock::now() + kGenerous, second);
  EXPECT_EQ(second->Wait().value_or(""), content_.substr(10, 10));
}

TEST_F(BlobClientTest, SecondRefusalOfATokenIsTheEnd) {
  HttpServer server([](const ServerRequest& /*r*/) {
    return ServerReply{.status = 401, .headers = {{"WWW-Authenticate", "Basic realm=\"x\""}}};
  });
  credentials_.credential = Credential{.username = "u", .secret = "SECRET"};
  EXPECT_THAT(Fetch(Open(server), 0, 10), StatusIs(StatusCode::kUnauthenticated,
                                                   ::testing::Not(::testing::HasSubstr("SECRET"))));
  EXPECT_EQ(server.requests().size(), 2U);
}

TEST_F(BlobClientTest, FailedMirrorIsAskedLast) {
  HttpServer mirror([](const ServerRequest& /*r*/) { return ServerReply{.status = 500}; });
  HttpServer server([&](const ServerRequest& r) { return HttpServer::Range(r, content_); });
  options_.hosts.origins[server.host()].mirrors = {{.host = mirror.host()}};
  const auto blob = Open(server);
  EXPECT_EQ(*Fetch(blob, 0, 10), content_.substr(0, 10));
  EXPECT_EQ(*Fetch(blob, 10, 10), content_.substr(10, 10));
  EXPECT_EQ(mirror.requests().size(), 1U);
  EXPECT_THAT(mirror.requests()[0].target, ::testing::HasSubstr("?ns=127.0.0.1%3A"));
}

TEST_F(BlobClientTest, InvalidSourceAsksNobody) {
  client_ = *BlobClient::Create(options_, credentials_, *http_);
  EXPECT_THAT(Fetch(client_->Open({.digest = "../x"}), 0, 10),
              StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace strata
