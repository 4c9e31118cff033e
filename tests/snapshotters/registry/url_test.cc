// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/url.h"

#include <string>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::IsOk;
using testing::StatusIs;

TEST(UrlTest, LowersTheHostAndDropsTheSchemesOwnPort) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Url url, ParseUrl("HTTPS://Reg.Example:443/V2/x?A=b#frag"));
  EXPECT_EQ(url.ToString(), "https://reg.example/V2/x?A=b");
  EXPECT_TRUE(url.SameOrigin(*ParseUrl("https://reg.example/other")));
  EXPECT_FALSE(url.SameOrigin(*ParseUrl("http://reg.example/")));
  EXPECT_FALSE(url.SameOrigin(*ParseUrl("https://reg.example:444/")));
}

TEST(UrlTest, RefusesWhatIsNoPlainHttpUrl) {
  for (const std::string text : {"", "ftp://x/", "https://", "https:///x", "https://user:pw@host/",
                                 "https://h/a b", "https://h/a\r\nX: y", "file:///etc/passwd"}) {
    EXPECT_THAT(ParseUrl(text), StatusIs(StatusCode::kInvalidArgument)) << text;
  }
  EXPECT_THAT(ParseUrl("https://h/" + std::string(20'000, 'a')),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(UrlTest, ErrorDoesNotShowTheUrl) {
  const auto url = ParseUrl("https://user:SECRET@host/?sig=SECRET");
  EXPECT_EQ(std::string(StatusMessage(url.status())).find("SECRET"), std::string::npos);
}

TEST(UrlTest, ResolvesEveryFormOfLocation) {
  const Url base = *ParseUrl("https://a.example/v2/x/blobs/d?ns=o");
  EXPECT_EQ(ResolveLocation(base, "http://b.example/y?q=https://z")->ToString(),
            "http://b.example/y?q=https://z");
  EXPECT_EQ(ResolveLocation(base, "//c.example/y")->ToString(), "https://c.example/y");
  EXPECT_EQ(ResolveLocation(base, "/y?u=http://k/")->ToString(), "https://a.example/y?u=http://k/");
  EXPECT_EQ(ResolveLocation(base, "?q")->ToString(), "https://a.example/v2/x/blobs/d?q");
  EXPECT_EQ(ResolveLocation(base, "e")->ToString(), "https://a.example/v2/x/blobs/e");
  EXPECT_FALSE(ResolveLocation(base, "").ok());
}

TEST(UrlTest, FindsQueryParametersWithoutCase) {
  const Url url = *ParseUrl("https://h/?a=1&x-amz-expires=6%30&b");
  EXPECT_EQ(QueryParameter(url, "X-Amz-Expires"), "60");
  EXPECT_EQ(QueryParameter(url, "b"), "");
  EXPECT_EQ(QueryParameter(url, "c"), std::nullopt);
}

TEST(UrlTest, LoopbackIsOnlyWhatCannotLeaveTheMachine) {
  for (const char* host : {"localhost", "localhost:5000", "a.localhost", "127.0.0.1:1", "127.9.9.9",
                           "[::1]", "[::1]:80"}) {
    EXPECT_TRUE(IsLoopback(host)) << host;
  }
  for (const char* host : {"127.0.0.1.evil.example", "127.evil", "localhost.evil", "[::2]",
                           "128.0.0.1", "notlocalhost"}) {
    EXPECT_FALSE(IsLoopback(host)) << host;
  }
}

}  // namespace
}  // namespace strata
