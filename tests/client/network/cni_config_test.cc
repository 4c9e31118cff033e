// SPDX-License-Identifier: Apache-2.0
#include "client/network/cni_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

TEST(CniConfigTest, OnePluginIsAListOfOne) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const CniConfig config,
      ParseCniConfig(R"({"cniVersion":"0.3.1","name":"net","type":"bridge","mtu":9000})", false));
  EXPECT_EQ(config.name, "net");
  EXPECT_EQ(config.version, "0.3.1");
  ASSERT_THAT(config.plugins, SizeIs(1));
  EXPECT_EQ(config.plugins[0].type, "bridge");
  EXPECT_EQ(json::parse(config.plugins[0].config),
            json::parse(R"({"cniVersion":"0.3.1","name":"net","type":"bridge","mtu":9000})"));
}

TEST(CniConfigTest, PluginsOfAListGetItsNameAndVersion) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const CniConfig config,
      ParseCniConfig(
          R"({"cniVersion":"1.0.0","name":"net","plugins":[{"type":"a","x":1},{"type":"b"}]})",
          true));
  ASSERT_THAT(config.plugins, SizeIs(2));
  EXPECT_EQ(json::parse(config.plugins[0].config),
            json::parse(R"({"cniVersion":"1.0.0","name":"net","type":"a","x":1})"));
  EXPECT_EQ(config.plugins[1].type, "b");
}

TEST(CniConfigTest, ItsTextIsTheSameNetwork) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const CniConfig one, ParseCniConfig(R"({"name":"net","type":"bridge","mtu":9000})", false));
  STRATA_ASSERT_OK_AND_ASSIGN(const CniConfig two, ParseCniConfig(one.text, true));
  EXPECT_EQ(one.digest, two.digest);
  EXPECT_EQ(one.plugins[0].config, two.plugins[0].config);
}

TEST(CniConfigTest, AnotherNetworkHasAnotherDigest) {
  STRATA_ASSERT_OK_AND_ASSIGN(const CniConfig one,
                              ParseCniConfig(R"({"name":"net","type":"a"})", false));
  STRATA_ASSERT_OK_AND_ASSIGN(const CniConfig two,
                              ParseCniConfig(R"({"name":"net","type":"b"})", false));
  EXPECT_THAT(one.digest, SizeIs(12));
  EXPECT_NE(one.digest, two.digest);
}

TEST(CniConfigTest, WithoutAVersionItIsTheFirst) {
  STRATA_ASSERT_OK_AND_ASSIGN(const CniConfig config,
                              ParseCniConfig(R"({"name":"net","type":"a"})", false));
  EXPECT_EQ(config.version, "0.1.0");
}

TEST(CniConfigTest, ResultsAreForDelSince040) {
  for (const auto& [version, keeps] : {std::pair<const char*, bool>{"0.1.0", false},
                                       {"0.3.1", false},
                                       {"0.4.0", true},
                                       {"0.10.0", true},
                                       {"1.0.0", true}}) {
    const json network = {{"name", "net"}, {"type", "a"}, {"cniVersion", version}};
    STRATA_ASSERT_OK_AND_ASSIGN(const CniConfig config, ParseCniConfig(network.dump(), false));
    EXPECT_EQ(config.keeps_result_for_del, keeps) << version;
  }
}

struct BadCase {
  std::string name;
  std::string text;
  std::string wanted;
};

class BadCniConfigTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadCniConfigTest, IsRefused) {
  EXPECT_THAT(ParseCniConfig(GetParam().text, /*list=*/true),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr(GetParam().wanted)));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, BadCniConfigTest,
    ::testing::Values(
        BadCase{"NotJson", "{", "a JSON object"}, BadCase{"NotAnObject", "[]", "a JSON object"},
        BadCase{"NoName", R"({"plugins":[{"type":"a"}]})", "\"name\""},
        BadCase{"NameIsAPath", R"({"name":"../x","plugins":[{"type":"a"}]})", "\"name\""},
        BadCase{"NameIsANumber", R"({"name":1,"plugins":[{"type":"a"}]})", "a string as \"name\""},
        BadCase{"NoPlugins", R"({"name":"n"})", "\"plugins\""},
        BadCase{"EmptyPlugins", R"({"name":"n","plugins":[]})", "\"plugins\""},
        BadCase{"PluginIsNoObject", R"({"name":"n","plugins":["a"]})", "an object"},
        BadCase{"PluginWithoutType", R"({"name":"n","plugins":[{}]})", "\"type\""},
        BadCase{"TypeIsAPath", R"({"name":"n","plugins":[{"type":"/bin/sh"}]})", "\"type\""},
        BadCase{"TypeLeadsOut", R"({"name":"n","plugins":[{"type":"../sh"}]})", "\"type\""},
        BadCase{"BadVersion", R"({"name":"n","cniVersion":"one","plugins":[{"type":"a"}]})",
                "\"cniVersion\""}),
    [](const auto& tested) { return tested.param.name; });

TEST(CniConfigTest, AFileThatIsNotThereHasTheSeedsText) {
  EXPECT_THAT(ReadCniConfig("/nosuch/cni.json"),
              StatusIs(StatusCode::kNotFound,
                       "failed to read cni config \"/nosuch/cni.json\": stat /nosuch/cni.json: no "
                       "such file or directory"));
}

TEST(CniConfigTest, AFileIsAListByItsName) {
  const TempDir dir;
  const std::string list = R"({"name":"n","plugins":[{"type":"a"},{"type":"b"}]})";
  std::ofstream(dir.Join("net.conflist")) << list;
  std::ofstream(dir.Join("net.conf")) << list;
  STRATA_ASSERT_OK_AND_ASSIGN(const CniConfig config, ReadCniConfig(dir.Join("net.conflist")));
  EXPECT_THAT(config.plugins, SizeIs(2));
  EXPECT_THAT(ReadCniConfig(dir.Join("net.conf")),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("cni config \"" + dir.Join("net.conf") + "\""),
                             HasSubstr("\"type\""))));
}

TEST(CniConfigTest, ThePreviousResultGoesIntoTheConfiguration) {
  EXPECT_EQ(json::parse(WithPreviousResult(R"({"name":"n"})", R"({"ips":[]})")),
            json::parse(R"({"name":"n","prevResult":{"ips":[]}})"));
  EXPECT_EQ(WithPreviousResult(R"({"name":"n"})", ""), R"({"name":"n"})");
}

}  // namespace
}  // namespace strata::testing
