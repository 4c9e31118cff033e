// SPDX-License-Identifier: Apache-2.0
//
// The protocol between a runtime and its plugins, with plugins that are shell scripts.
#include "client/network/cni_plugin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/client/network/fake_plugin.h"
#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr seconds kLimit{60};  // a test that waits longer has failed

class CniPluginTest : public ::testing::Test {
 protected:
  static CniConfig Network(const std::string& version = "1.0.0") {
    const json network = {{"name", "net"},
                          {"cniVersion", version},
                          {"plugins", {{{"type", "first"}}, {{"type", "second"}}}}};
    auto config = ParseCniConfig(network.dump(), /*list=*/true);
    EXPECT_THAT(config, IsOk());
    return *config;
  }

  CniAttachment Attachment() {
    return {.container_id = "id-1",
            .netns = "/run/ns",
            .args = "A=1;B=2",
            .plugin_path = "/nosuch:" + plugins_.folder()};
  }

  static CniLimits Limits(milliseconds limit = kLimit) {
    return {.deadline = steady_clock::now() + limit};
  }

  // Whether process `pid` (a line) does not end in time. Init takes those that have ended when it
  // likes: a zombie does not run.
  static bool Runs(const std::string& pid) {
    EXPECT_NE(pid, "") << "the plugin did not get that far";
    const std::string path = "/proc/" + pid.substr(0, pid.find('\n')) + "/stat";
    const auto end = steady_clock::now() + kLimit;
    while (steady_clock::now() < end) {
      const std::string stat = ReadText(path);
      const size_t state = stat.rfind(") ");
      if (state == std::string::npos || stat[state + 2] == 'Z' || stat[state + 2] == 'X') {
        return false;
      }
    }
    return true;
  }

  FakePlugins plugins_;
};

TEST_F(CniPluginTest, AddTellsThePluginWhatToDo) {
  plugins_.Add("first", "echo '{\"ips\":[1]}'");
  plugins_.Add("second", "echo '{\"ips\":[1,2]}'");
  ::setenv("CNI_COMMAND", "OURS", 1);
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string result, CniAdd(Network(), Attachment(), Limits()));
  ::unsetenv("CNI_COMMAND");
  EXPECT_EQ(json::parse(result), json::parse(R"({"ips":[1,2]})"));
  EXPECT_THAT(plugins_.EnvironmentOf("ADD", "first"),
              AllOf(HasSubstr("CNI_COMMAND=ADD\n"), HasSubstr("CNI_CONTAINERID=id-1\n"),
                    HasSubstr("CNI_NETNS=/run/ns\n"), HasSubstr("CNI_IFNAME=eth0\n"),
                    HasSubstr("CNI_ARGS=A=1;B=2\n"),
                    HasSubstr("CNI_PATH=/nosuch:" + plugins_.folder() + "\n"), HasSubstr("PATH="),
                    Not(HasSubstr("OURS"))));
}

TEST_F(CniPluginTest, AddGivesEachTheResultOfTheOneBefore) {
  plugins_.Add("first", "echo '{\"ips\":[1]}'");
  plugins_.Add("second", "echo '{\"ips\":[1,2]}'");
  ASSERT_THAT(CniAdd(Network(), Attachment(), Limits()), IsOk());
  EXPECT_THAT(plugins_.Calls(), ElementsAre("ADD first", "ADD second"));
  EXPECT_EQ(json::parse(plugins_.InputOf("ADD", "first")),
            json::parse(R"({"name":"net","cniVersion":"1.0.0","type":"first"})"));
  EXPECT_EQ(json::parse(plugins_.InputOf("ADD", "second")),
            json::parse(R"({"name":"net","cniVersion":"1.0.0","type":"second",
                            "prevResult":{"ips":[1]}})"));
}

TEST_F(CniPluginTest, DelGoesBackwardsWithTheResult) {
  plugins_.Add("first", "");
  plugins_.Add("second", "");
  ASSERT_THAT(CniDel(Network(), Attachment(), R"({"ips":[7]})", Limits()), IsOk());
  EXPECT_THAT(plugins_.Calls(), ElementsAre("DEL second", "DEL first"));
  for (const char* name : {"first", "second"}) {
    EXPECT_EQ(json::parse(plugins_.InputOf("DEL", name))["prevResult"],
              json::parse(R"({"ips":[7]})"));
  }
}

TEST_F(CniPluginTest, DelBefore040HasNoResult) {
  plugins_.Add("first", "");
  plugins_.Add("second", "");
  ASSERT_THAT(CniDel(Network("0.3.1"), Attachment(), R"({"ips":[7]})", Limits()), IsOk());
  EXPECT_FALSE(json::parse(plugins_.InputOf("DEL", "first")).contains("prevResult"));
}

TEST_F(CniPluginTest, DelGoesOnOverAFailure) {
  plugins_.Add("first", "");
  plugins_.Add("second", "echo '{\"code\":11,\"msg\":\"later\"}'; exit 1");
  EXPECT_THAT(CniDel(Network(), Attachment(), "", Limits()),
              StatusIs(StatusCode::kUnavailable, HasSubstr("plugin \"second\": later")));
  EXPECT_THAT(plugins_.Calls(), ElementsAre("DEL second", "DEL first"));
}

TEST_F(CniPluginTest, AnErrorIsInThePluginsWords) {
  plugins_.Add("first", "echo '{\"code\":7,\"msg\":\"no room\",\"details\":\"in 10/8\"}'; exit 1");
  EXPECT_THAT(CniAdd(Network(), Attachment(), Limits()),
              StatusIs(StatusCode::kUnavailable, "plugin \"first\": no room; in 10/8"));
}

TEST_F(CniPluginTest, WithoutWordsItIsTheExitCodeAndTheLastLine) {
  plugins_.Add("first", "echo one >&2; echo two >&2; exit 3");
  EXPECT_THAT(CniAdd(Network(), Attachment(), Limits()),
              StatusIs(StatusCode::kUnavailable, "plugin \"first\": it ended with 3: two"));
}

TEST_F(CniPluginTest, ASignalIsAnErrorToo) {
  plugins_.Add("first", "kill -SEGV $$");
  EXPECT_THAT(CniAdd(Network(), Attachment(), Limits()),
              StatusIs(StatusCode::kUnavailable, HasSubstr("it ended with 139")));
}

TEST_F(CniPluginTest, AResultThatIsNoneIsAnError) {
  plugins_.Add("first", "echo fine");
  EXPECT_THAT(CniAdd(Network(), Attachment(), Limits()),
              StatusIs(StatusCode::kUnavailable, HasSubstr("a JSON object")));
}

TEST_F(CniPluginTest, APluginThatIsNotThereIsNamed) {
  EXPECT_THAT(
      CniAdd(Network(), Attachment(), Limits()),
      StatusIs(StatusCode::kUnavailable,
               "failed to find plugin \"first\" in path [/nosuch:" + plugins_.folder() + "]"));
}

TEST_F(CniPluginTest, OneThatHangsIsKilledWithAllThatItStarted) {
  plugins_.Add("first", "sleep 1000 & echo $! > child; wait");
  const auto start = steady_clock::now();
  // A busy machine may need more to get as far as that.
  for (milliseconds limit{300}; limit < kLimit && ReadText(plugins_.Note("child")).empty();
       limit *= 5) {
    EXPECT_THAT(CniAdd(Network(), Attachment(), Limits(limit)),
                StatusIs(StatusCode::kDeadlineExceeded,
                         HasSubstr("plugin \"first\": ADD was not done after")));
  }
  EXPECT_LT(steady_clock::now() - start, kLimit);
  EXPECT_FALSE(Runs(ReadText(plugins_.Note("child"))));
}

TEST_F(CniPluginTest, WhatOneLeavesBehindIsKilledToo) {
  plugins_.Add("first", "sleep 1000 & echo $! > child; echo '{}'");
  plugins_.Add("second", "echo '{}'");
  ASSERT_THAT(CniAdd(Network(), Attachment(), Limits()), IsOk());
  EXPECT_FALSE(Runs(ReadText(plugins_.Note("child"))));
}

TEST_F(CniPluginTest, OnceStoppedItGetsLittleTime) {
  plugins_.Add("first", "sleep 1000");
  const std::atomic<bool> stop = true;
  const auto start = steady_clock::now();
  EXPECT_THAT(CniAdd(Network(), Attachment(),
                     {.deadline = steady_clock::now() + std::chrono::hours(1), .stop = &stop}),
              StatusIs(StatusCode::kDeadlineExceeded));
  EXPECT_LT(steady_clock::now() - start, kLimit);
}

}  // namespace
}  // namespace strata::testing
