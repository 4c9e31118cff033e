// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/redirect.h"

#include <string>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using std::chrono::seconds;
using testing::StatusIs;

constexpr TimeNs kNow = TimeNs{1'700'000'000} * 1'000'000'000;  // 2023-11-14T22:13:20Z

seconds Lifetime(const std::string& query, std::optional<std::string_view> cache_control = {}) {
  return RedirectLifetime(*ParseUrl("https://cdn.example/b?" + query), cache_control, kNow);
}

TEST(RedirectTest, SignaturesSayHowLong) {
  EXPECT_EQ(Lifetime("X-Amz-Expires=1000"), seconds(900));
  EXPECT_EQ(Lifetime("X-Amz-Date=20231114T221000Z&X-Amz-Expires=300"), seconds(90));
  EXPECT_EQ(Lifetime("X-Goog-Expires=1000"), seconds(900));
  EXPECT_EQ(Lifetime("Expires=1700001000"), seconds(900));
  EXPECT_EQ(Lifetime("se=2023-11-14T22%3A30%3A00Z"), seconds(900));
  EXPECT_EQ(Lifetime("Expires=1"), seconds(0));
}

TEST(RedirectTest, CacheControlShortens) {
  EXPECT_EQ(Lifetime("X-Amz-Expires=1000", "private, max-age=60"), seconds(60));
  EXPECT_EQ(Lifetime("X-Amz-Expires=1000", "max-age=9999"), seconds(900));
  EXPECT_EQ(Lifetime("X-Amz-Expires=1000", "No-Store"), seconds(0));
}

TEST(RedirectTest, LeavesHttpsOnlyForLoopback) {
  const Url from = *ParseUrl("https://reg.example/v2/");
  EXPECT_THAT(
      FollowRedirect(from, "http://cdn.example/?sig=SECRET"),
      StatusIs(StatusCode::kFailedPrecondition, ::testing::Not(::testing::HasSubstr("SECRET"))));
  EXPECT_TRUE(FollowRedirect(from, "http://127.0.0.1/x").ok());
  EXPECT_TRUE(FollowRedirect(*ParseUrl("http://reg.example/"), "http://cdn.example/x").ok());
}

}  // namespace
}  // namespace strata
