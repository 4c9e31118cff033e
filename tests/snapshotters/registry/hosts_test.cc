// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/hosts.h"

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

TEST(HostsTest, DockerHubIsAskedAtItsRegistry) {
  const auto hosts = HostsFor({.host = "docker.io", .repository = "library/debian"}, {});
  ASSERT_EQ(hosts.size(), 1U);
  EXPECT_EQ(hosts[0].BlobUrl({.host = "docker.io", .repository = "library/debian"}, "d"),
            "https://registry-1.docker.io/v2/library/debian/blobs/d");
}

TEST(HostsTest, MirrorsComeFirstAndAreToldTheOrigin) {
  HostsConfig config;
  config.origins["o.example"].mirrors = {
      {.host = "m1:5000", .insecure = true, .request_timeout = std::chrono::milliseconds(7)},
      {.host = "http://m2"}};
  const Reference reference{.host = "o.example", .repository = "r"};
  const auto hosts = HostsFor(reference, config);
  ASSERT_EQ(hosts.size(), 3U);
  EXPECT_EQ(hosts[0].BlobUrl(reference, "d"), "http://m1:5000/v2/r/blobs/d?ns=o.example");
  EXPECT_EQ(hosts[0].request_timeout, std::chrono::milliseconds(7));
  EXPECT_EQ(hosts[1].scheme, "http");
  EXPECT_EQ(hosts[1].request_timeout, config.request_timeout);
  EXPECT_EQ(hosts[2].BlobUrl(reference, "d"), "https://o.example/v2/r/blobs/d");
}

TEST(HostsTest, LoopbackIsPlainHttp) {
  EXPECT_EQ(HostsFor({.host = "localhost:5000", .repository = "r"}, {})[0].scheme, "http");
  EXPECT_EQ(HostsFor({.host = "[::1]:5000", .repository = "r"}, {})[0].scheme, "http");
  EXPECT_EQ(HostsFor({.host = "10.0.0.1:5000", .repository = "r"}, {})[0].scheme, "https");
}

}  // namespace
}  // namespace strata
