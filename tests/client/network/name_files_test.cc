// SPDX-License-Identifier: Apache-2.0
#include "client/network/name_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

constexpr const char* kPublic =
    "nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\n"
    "nameserver 2001:4860:4860::8844\n";

struct ResolvConfCase {
  std::string name;
  std::string host;
  DnsConfig dns;
  bool host_network = false;
  std::string wanted;
};

class ResolvConfTest : public ::testing::TestWithParam<ResolvConfCase> {};

TEST_P(ResolvConfTest, IsAsWanted) {
  EXPECT_EQ(ResolvConf(GetParam().host, GetParam().dns, GetParam().host_network),
            GetParam().wanted);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, ResolvConfTest,
    ::testing::Values(
        ResolvConfCase{.name = "KeptAsItIs",
                       .host = "# mine\nsearch a.example\nnameserver 192.0.2.1\nsortlist x\n",
                       .wanted = "# mine\nsearch a.example\nnameserver 192.0.2.1\nsortlist x\n"},
        ResolvConfCase{.name = "ALastLineWithoutItsEndGetsOne",
                       .host = "nameserver 192.0.2.1",
                       .wanted = "nameserver 192.0.2.1\n"},
        ResolvConfCase{.name = "LoopbackIsDropped",
                       .host = "nameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\n",
                       .wanted = "nameserver 192.0.2.1\n"},
        ResolvConfCase{.name = "PublicOnesWhereNoneIsLeft",
                       .host = "search a.example\nnameserver 127.1.2.3\noptions edns0\n",
                       .wanted = std::string("search a.example\noptions edns0\n") + kPublic},
        ResolvConfCase{.name = "PublicOnesForAnEmptyFile", .host = "", .wanted = kPublic},
        ResolvConfCase{.name = "LoopbackStaysInTheHostsNetwork",
                       .host = "nameserver 127.0.0.53\n",
                       .host_network = true,
                       .wanted = "nameserver 127.0.0.53\n"},
        ResolvConfCase{.name = "NothingIsAddedInTheHostsNetwork", .host_network = true},
        ResolvConfCase{.name = "AConfigurationReplacesAll",
                       .host = "search a.example\nnameserver 192.0.2.1\noptions edns0\n",
                       .dns = {.nameservers = {"192.0.2.7", "192.0.2.8"},
                               .options = {"ndots:2", "timeout:1"},
                               .search_domains = {"b.example", "c.example"}},
                       .wanted = "search b.example c.example\nnameserver 192.0.2.7\n"
                                 "nameserver 192.0.2.8\noptions ndots:2 timeout:1\n"},
        ResolvConfCase{.name = "EmptyListsFallBackToTheHost",
                       .host = "options edns0\nnameserver 192.0.2.1 # one\nsearch a.example\n"
                               "search z.example\n",
                       .dns = {.options = {"ndots:2"}},
                       .wanted = "search z.example\nnameserver 192.0.2.1\noptions ndots:2\n"},
        ResolvConfCase{.name = "ConfiguredLoopbackIsDroppedToo",
                       .host = "nameserver 192.0.2.1\n",
                       .dns = {.nameservers = {"127.0.0.1"}},
                       .wanted = kPublic},
        ResolvConfCase{.name = "ASearchListOfADotIsNone",
                       .host = "search a.example\nnameserver 192.0.2.1\n",
                       .dns = {.search_domains = {"."}},
                       .wanted = "nameserver 192.0.2.1\n"},
        ResolvConfCase{.name = "CommentsAndBrokenLinesAreNoNameservers",
                       .host = ";nameserver 192.0.2.1\nnameserver\n",
                       .wanted = std::string(";nameserver 192.0.2.1\nnameserver\n") + kPublic}),
    [](const auto& tested) { return tested.param.name; });

TEST(HostsFileTest, HasTheDefaultName) {
  EXPECT_EQ(HostsFile("", {}),
            "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n");
}

TEST(HostsFileTest, HasTheNameAndExtraHosts) {
  EXPECT_EQ(HostsFile("box", {{"192.0.2.1", "one.example"}, {"2001:db8::1", "two"}}),
            "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n"
            "192.0.2.1\tone.example\n2001:db8::1\ttwo\n");
}

class HostResolvConfTest : public ::testing::Test {
 protected:
  StatusOr<std::string> Read() { return ReadHostResolvConf(path_, behind_); }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }

  TempDir dir_;
  const std::string path_ = dir_.Join("resolv.conf");
  const std::string behind_ = dir_.Join("behind.conf");
};

TEST_F(HostResolvConfTest, IsTheFile) {
  Write(path_, "nameserver 192.0.2.1\n");
  Write(behind_, "nameserver 192.0.2.2\n");
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string text, Read());
  EXPECT_EQ(text, "nameserver 192.0.2.1\n");
}

TEST_F(HostResolvConfTest, FollowsALink) {
  Write(dir_.Join("real"), "nameserver 192.0.2.1\n");
  ASSERT_EQ(::symlink("real", path_.c_str()), 0);
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string text, Read());
  EXPECT_EQ(text, "nameserver 192.0.2.1\n");
}

TEST_F(HostResolvConfTest, LooksBehindTheStubOfResolved) {
  Write(path_, "nameserver 127.0.0.53\noptions edns0\n");
  Write(behind_, "nameserver 192.0.2.2\n");
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string text, Read());
  EXPECT_EQ(text, "nameserver 192.0.2.2\n");
}

TEST_F(HostResolvConfTest, TheStubBesideAnotherOneIsNoStub) {
  Write(path_, "nameserver 127.0.0.53\nnameserver 192.0.2.1\n");
  Write(behind_, "nameserver 192.0.2.2\n");
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string text, Read());
  EXPECT_EQ(text, "nameserver 127.0.0.53\nnameserver 192.0.2.1\n");
}

TEST_F(HostResolvConfTest, IsTheStubWhereNothingIsBehindIt) {
  Write(path_, "nameserver 127.0.0.53\n");
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string text, Read());
  EXPECT_EQ(text, "nameserver 127.0.0.53\n");
}

TEST_F(HostResolvConfTest, NoFileIsAnEmptyOne) {
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string text, Read());
  EXPECT_EQ(text, "");
}

}  // namespace
}  // namespace strata::testing
