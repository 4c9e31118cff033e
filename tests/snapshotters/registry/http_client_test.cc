// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/http_client.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <future>
#include <string>

#include "snapshotters/base/unique_fd.h"
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

// Longer than anything here takes on a loaded machine.
constexpr seconds kGenerous{60};

class HttpClientTest : public ::testing::Test {
 protected:
  static std::unique_ptr<HttpClient> NewClient(const HttpClient::Options& options = {}) {
    auto client = HttpClient::Create(options);
    return client.ok() ? *std::move(client) : nullptr;
  }
  static HttpRequest Get(const std::string& url) {
    return {.url = url, .deadline = steady_clock::now() + kGenerous};
  }
  std::unique_ptr<HttpClient> client_ = NewClient();
};

// Ends the request at its head, and promises its result.
class EndingSink : public HttpSink {
 public:
  bool OnHead(const HttpResponseHead& /*head*/) override { return false; }
  bool OnBody(std::string_view /*bytes*/) override {
    ++bodies_;
    return true;
  }
  void OnDone(Status status) override { done_.set_value(std::move(status)); }
  Status Wait() { return done_.get_future().get(); }
  [[nodiscard]] int bodies() const { return bodies_; }

 private:
  std::atomic<int> bodies_{0};
  std::promise<Status> done_;
};

TEST_F(HttpClientTest, BringsStatusHeadersAndBody) {
  HttpServer server([](const ServerRequest& request) {
    return ServerReply{
        .status = 404, .headers = {{"X-Some", " v "}}, .body = request.Header("x-ask")};
  });
  HttpRequest request = Get(server.url() + "/a?b");
  request.headers = {{"X-Ask", "hello"}, {"X-Bad", "a\r\nX-Injected: 1"}};
  STRATA_ASSERT_OK_AND_ASSIGN(const HttpResponse response, client_->Fetch(std::move(request)));
  EXPECT_EQ(response.head.status, 404);
  EXPECT_EQ(response.head.Find("x-some"), "v");
  EXPECT_EQ(response.body, "hello");
  EXPECT_EQ(server.requests()[0].target, "/a?b");
  EXPECT_EQ(server.requests()[0].Header("x-injected"), "");
}

TEST_F(HttpClientTest, PostsAndHeads) {
  HttpServer server([](const ServerRequest& request) { return ServerReply{.body = request.body}; });
  HttpRequest post = Get(server.url() + "/");
  post.method = HttpMethod::kPost;
  post.body = "a=b";
  EXPECT_EQ(client_->Fetch(std::move(post))->body, "a=b");
  HttpRequest head = Get(server.url() + "/");
  head.method = HttpMethod::kHead;
  EXPECT_EQ(client_->Fetch(std::move(head))->head.status, 200);
}

TEST_F(HttpClientTest, KeepsTheConnection) {
  HttpServer server([](const ServerRequest& /*request*/) { return ServerReply{.body = "x"}; });
  for (int i = 0; i < 5; ++i) {
    ASSERT_THAT(client_->Fetch(Get(server.url() + "/")), IsOk());
  }
  EXPECT_EQ(server.connections(), 1U);
}

TEST_F(HttpClientTest, FollowsNoRedirect) {
  HttpServer server([](const ServerRequest& /*request*/) {
    return ServerReply{.status = 302, .headers = {{"Location", "/elsewhere"}}};
  });
  EXPECT_EQ(client_->Fetch(Get(server.url() + "/"))->head.status, 302);
  EXPECT_EQ(server.requests().size(), 1U);
}

TEST_F(HttpClientTest, LongerBodyThanAllowedEnds) {
  HttpServer server(
      [](const ServerRequest& /*request*/) { return ServerReply{.body = std::string(1000, 'x')}; });
  HttpRequest request = Get(server.url() + "/");
  request.max_body = 999;
  EXPECT_THAT(client_->Fetch(std::move(request)), StatusIs(StatusCode::kResourceExhausted));
}

TEST_F(HttpClientTest, CutBodyIsUnavailable) {
  HttpServer server([](const ServerRequest& /*request*/) {
    return ServerReply{.body = "0123456789", .cut_after = 5};
  });
  EXPECT_THAT(client_->Fetch(Get(server.url() + "/")), StatusIs(StatusCode::kUnavailable));
}

TEST_F(HttpClientTest, DeadlineEndsAStalledRequest) {
  HttpServer server([](const ServerRequest& /*request*/) { return ServerReply{.stall = true}; });
  HttpRequest request = Get(server.url() + "/path?sig=SECRET");
  request.deadline = steady_clock::now() + milliseconds(50);
  EXPECT_THAT(client_->Fetch(std::move(request)),
              StatusIs(StatusCode::kDeadlineExceeded,
                       ::testing::AllOf(::testing::HasSubstr(server.host()),
                                        ::testing::Not(::testing::HasSubstr("SECRET")))));
}

TEST_F(HttpClientTest, StallIsUnavailableBeforeTheDeadline) {
  HttpServer server([](const ServerRequest& /*request*/) { return ServerReply{.stall = true}; });
  const auto client = NewClient({.stall_timeout = seconds(1)});
  EXPECT_THAT(client->Fetch(Get(server.url() + "/")), StatusIs(StatusCode::kUnavailable));
}

TEST_F(HttpClientTest, RefusedConnectionIsUnavailable) {
  // A port that nobody listens at and nobody else can take.
  const UniqueFd taken(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(::bind(taken.get(), generic, size), 0);
  ASSERT_EQ(::getsockname(taken.get(), generic, &size), 0);
  const std::string url = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/";
  EXPECT_THAT(client_->Fetch(Get(url)), StatusIs(StatusCode::kUnavailable));
}

TEST_F(HttpClientTest, BadUrlIsInvalid) {
  EXPECT_THAT(client_->Fetch(Get("file:///etc/passwd")), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(HttpClientTest, SinkThatEndsGetsNoBody) {
  HttpServer server([](const ServerRequest& /*request*/) { return ServerReply{.body = "x"}; });
  const auto sink = std::make_shared<EndingSink>();
  client_->Start(Get(server.url() + "/"), sink);
  EXPECT_THAT(sink->Wait(), IsOk());
  EXPECT_EQ(sink->bodies(), 0);
}

TEST_F(HttpClientTest, EndOfTheClientCancelsRequestsAndTimers) {
  HttpServer server([](const ServerRequest& /*request*/) { return ServerReply{.stall = true}; });
  const auto sink = std::make_shared<EndingSink>();
  std::promise<Status> timer;
  client_->Start(Get(server.url() + "/"), sink);
  client_->RunAt(steady_clock::now() + kGenerous,
                 [&timer](const Status& status) { timer.set_value(status); });
  client_.reset();
  EXPECT_THAT(sink->Wait(), StatusIs(StatusCode::kCancelled));
  EXPECT_THAT(timer.get_future().get(), StatusIs(StatusCode::kCancelled));
}

TEST_F(HttpClientTest, WaitingRequestEndsAtItsDeadline) {
  HttpServer server([](const ServerRequest& /*request*/) { return ServerReply{.stall = true}; });
  const auto client = NewClient({.requests_per_host = 1, .reserved_per_host = 0});
  const auto first = std::make_shared<EndingSink>();
  client->Start(Get(server.url() + "/first"), first);
  HttpRequest request = Get(server.url() + "/second");
  request.deadline = steady_clock::now() + milliseconds(50);
  EXPECT_THAT(client->Fetch(std::move(request)), StatusIs(StatusCode::kDeadlineExceeded));
  EXPECT_LE(server.requests().size(), 1U);
}

TEST_F(HttpClientTest, UrgentRequestsHaveAPlaceOfTheirOwn) {
  HttpServer server([](const ServerRequest& request) {
    return request.target == "/slow" ? ServerReply{.stall = true} : ServerReply{.body = "x"};
  });
  const auto client = NewClient({.requests_per_host = 2, .reserved_per_host = 1});
  const auto slow = std::make_shared<EndingSink>();
  const auto slower = std::make_shared<EndingSink>();
  client->Start(Get(server.url() + "/slow"), slow);
  client->Start(Get(server.url() + "/slow"), slower);
  HttpRequest urgent = Get(server.url() + "/urgent");
  urgent.priority = 1;
  EXPECT_THAT(client->Fetch(std::move(urgent)), IsOk());
}

}  // namespace
}  // namespace strata
