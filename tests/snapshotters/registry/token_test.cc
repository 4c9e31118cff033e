// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/token.h"

#include <future>
#include <string>
#include <vector>

#include "tests/support/http_server.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::HttpServer;
using testing::ServerReply;
using testing::ServerRequest;
using testing::StatusIs;

TEST(ChallengeTest, ReadsQuotedStrings) {
  const auto challenges = ParseChallenges(
      R"(Bearer realm="https://a.example/t?x=\"y\"",service="s, t",scope="repository:a/b:pull,push")");
  ASSERT_EQ(challenges.size(), 1U);
  EXPECT_EQ(challenges[0].realm, R"(https://a.example/t?x="y")");
  EXPECT_EQ(challenges[0].service, "s, t");
  EXPECT_EQ(challenges[0].scope, "repository:a/b:pull,push");
}

TEST(ChallengeTest, ReadsSeveralAndLeavesOutUnknownOnes) {
  const auto challenges =
      ParseChallenges(R"(Negotiate, Digest realm="d", BASIC realm=b , bearer realm = "c")");
  ASSERT_EQ(challenges.size(), 2U);
  EXPECT_EQ(challenges[0].scheme, Challenge::Scheme::kBasic);
  EXPECT_EQ(challenges[0].realm, "b");
  EXPECT_EQ(challenges[1].realm, "c");
}

TEST(ChallengeTest, EndsOnWhatDoesNotParse) {
  for (const std::string text : {"", ",,,", "=", "Bearer realm=\"open", "Bearer realm=\"a\\", "\"",
                                 "Bearer =x", "Bearer realm==\"\"\""}) {
    (void)ParseChallenges(text);
  }
  EXPECT_TRUE(ParseChallenges("=x").empty());
}

TEST(TokenTest, ReadsBothNamesAndTheLifetime) {
  EXPECT_EQ(ParseToken(R"({"token": "a"})")->value, "a");
  EXPECT_EQ(ParseToken(R"({"token": "a"})")->lifetime, seconds(60));
  EXPECT_EQ(ParseToken(R"({"access_token": "b", "expires_in": 300})")->lifetime, seconds(300));
  for (const char* text :
       {"", "[]", "{}", R"({"token": 5})", R"({"token": ""})", R"({"token": "a\r\nb"})"}) {
    EXPECT_FALSE(ParseToken(text).ok()) << text;
  }
}

class TokenBrokerTest : public ::testing::Test {
 protected:
  // Asks on the I/O thread `count` times at once.
  std::vector<StatusOr<std::string>> Renew(int count, const std::string& challenge,
                                           const std::optional<Credential>& credential,
                                           milliseconds limit = seconds(60)) {
    std::vector<std::promise<StatusOr<std::string>>> promises(static_cast<size_t>(count));
    client_->RunAt(Deadline(), [&](const Status& /*status*/) {
      for (auto& promise : promises) {
        broker_.Renew({.origin = "http://127.0.0.1:1", .scope = "repository:r:pull"}, challenge,
                      credential, {}, "", steady_clock::now() + limit,
                      [&promise](const StatusOr<std::string>& h) { promise.set_value(h); });
      }
    });
    std::vector<StatusOr<std::string>> results;
    for (auto& promise : promises) {
      results.push_back(promise.get_future().get());
    }
    return results;
  }
  std::unique_ptr<HttpClient> client_ = *HttpClient::Create({});
  TokenBroker broker_{*client_, seconds(60)};
};

TEST_F(TokenBrokerTest, AsksOnceForAll) {
  HttpServer server(
      [](const ServerRequest& /*request*/) { return ServerReply{.body = R"({"token": "T"})"}; });
  const auto results = Renew(10, "Bearer realm=\"" + server.url() + "/t\",service=\"s\"",
                             Credential{.username = "u", .secret = "p"});
  for (const auto& result : results) {
    EXPECT_EQ(*result, "Bearer T");
  }
  ASSERT_EQ(server.requests().size(), 1U);
  EXPECT_EQ(server.requests()[0].target, "/t?service=s&scope=repository%3Ar%3Apull");
  EXPECT_EQ(server.requests()[0].Header("authorization"), "Basic dTpw");
}

TEST_F(TokenBrokerTest, IdentityTokenIsPosted) {
  HttpServer server([](const ServerRequest& /*request*/) {
    return ServerReply{.body = R"({"access_token": "T"})"};
  });
  const auto results =
      Renew(1, "Bearer realm=\"" + server.url() + "/t\"", Credential{.identity_token = "I/D"});
  EXPECT_EQ(*results[0], "Bearer T");
  EXPECT_EQ(server.requests()[0].method, "POST");
  EXPECT_THAT(server.requests()[0].body, ::testing::HasSubstr("refresh_token=I%2FD"));
}

TEST_F(TokenBrokerTest, WaiterEndsAtItsOwnDeadline) {
  HttpServer server([](const ServerRequest& /*request*/) { return ServerReply{.stall = true}; });
  const auto results =
      Renew(2, "Bearer realm=\"" + server.url() + "/t\"", std::nullopt, milliseconds(30));
  for (const auto& result : results) {
    EXPECT_THAT(result, StatusIs(StatusCode::kDeadlineExceeded));
  }
  client_.reset();  // before what the broker needs
}

TEST_F(TokenBrokerTest, RefusalOfTheTokenServerIsPassedOn) {
  HttpServer server([](const ServerRequest& /*request*/) { return ServerReply{.status = 403}; });
  EXPECT_THAT(Renew(1, "Bearer realm=\"" + server.url() + "/t\"", std::nullopt)[0],
              StatusIs(StatusCode::kPermissionDenied));
}

TEST_F(TokenBrokerTest, BasicNeedsACredential) {
  EXPECT_THAT(Renew(1, "Basic realm=\"x\"", std::nullopt)[0],
              StatusIs(StatusCode::kUnauthenticated));
  EXPECT_EQ(*Renew(1, "Basic realm=\"x\"", Credential{.username = "u", .secret = "p"})[0],
            "Basic dTpw");
}

}  // namespace
}  // namespace strata
