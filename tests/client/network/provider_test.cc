// SPDX-License-Identifier: Apache-2.0
//
// Which network a mode is, and what is said of a bad one. Nothing is set up.
#include "client/network/provider.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;

class NetworkModeTest : public ::testing::Test {
 protected:
  NetworkOptions Options(const std::string& mode) {
    return {.mode = mode,
            .state_directory = dir_.Join("state"),
            .cni_config_path = dir_.Join("cni.json"),
            .cni_binary_dir = dir_.Join("bin"),
            .environment = [this](const char* name) { return environment_[name]; }};
  }

  void AddConfig() { std::ofstream(dir_.Join("cni.json")) << R"({"name":"n","type":"bridge"})"; }
  void AddFolder() { ASSERT_EQ(::mkdir(dir_.Join("bin").c_str(), 0755), 0); }
  void AddBridgePlugin() {
    AddFolder();
    std::ofstream(dir_.Join("bin/bridge")) << "";
  }

  std::string NameOf(const NetworkOptions& options) {
    const auto network = NewDefaultNetwork(options);
    EXPECT_THAT(network, IsOk());
    return network.ok() ? (*network)->name() : "";
  }

  TempDir dir_;
  std::map<std::string, std::string> environment_;
};

TEST_F(NetworkModeTest, HostIsTheHosts) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto provider, NewDefaultNetwork(Options("host")));
  EXPECT_EQ(provider->name(), "host");
  STRATA_ASSERT_OK_AND_ASSIGN(const auto network,
                              provider->Take("box", std::chrono::milliseconds(1)));
  EXPECT_EQ(network->kind(), ContainerNetwork::Kind::kHost);
  EXPECT_EQ(network->path(), "");
}

TEST_F(NetworkModeTest, NoneIsOneThatTheRuntimeMakes) {
  const auto provider = NewNoNetwork();
  EXPECT_EQ(provider->name(), "none");
  STRATA_ASSERT_OK_AND_ASSIGN(const auto network, provider->Take("", std::chrono::milliseconds(1)));
  EXPECT_EQ(network->kind(), ContainerNetwork::Kind::kNone);
}

TEST_F(NetworkModeTest, OtherModesAreRefused) {
  for (const std::string mode : {"foo", "none", "", "Host"}) {
    EXPECT_THAT(NewDefaultNetwork(Options(mode)),
                StatusIs(StatusCode::kInvalidArgument, "invalid network mode: \"" + mode + "\""));
  }
}

TEST_F(NetworkModeTest, AutoIsTheHostWithoutAConfiguration) {
  EXPECT_EQ(NameOf(Options("auto")), "host");
}

TEST_F(NetworkModeTest, AutoIsCniWithAConfiguration) {
  AddConfig();
  AddFolder();
  EXPECT_EQ(NameOf(Options("auto")), "cni");
}

TEST_F(NetworkModeTest, AutoIsTheBridgeWhenTheEnvironmentSaysSo) {
  for (const char* value : {"1", "t", "T", "TRUE", "true", "True"}) {
    environment_["BUILDKIT_NETWORK_BRIDGE_AUTO"] = value;
    EXPECT_THAT(NewDefaultNetwork(Options("auto")),
                StatusIs(StatusCode::kNotFound, HasSubstr("failed to find CNI bridge")))
        << value;
  }
  environment_["BUILDKIT_NETWORK_BRIDGE_AUTO"] = "yes";
  EXPECT_EQ(NameOf(Options("auto")), "host");
}

TEST_F(NetworkModeTest, CniNeedsItsConfiguration) {
  AddFolder();
  const std::string path = dir_.Join("cni.json");
  EXPECT_THAT(NewDefaultNetwork(Options("cni")),
              StatusIs(StatusCode::kNotFound, "failed to read cni config \"" + path + "\": stat " +
                                                  path + ": no such file or directory"));
}

TEST_F(NetworkModeTest, CniNeedsItsPlugins) {
  AddConfig();
  EXPECT_THAT(NewDefaultNetwork(Options("cni")),
              StatusIs(StatusCode::kNotFound,
                       HasSubstr("failed to read cni binary dir \"" + dir_.Join("bin") + "\"")));
}

TEST_F(NetworkModeTest, TheBridgeNeedsItsPlugin) {
  EXPECT_THAT(
      NewDefaultNetwork(Options("bridge")),
      StatusIs(StatusCode::kNotFound, "failed to find CNI bridge \"" + dir_.Join("bin/bridge") +
                                          "\" or buildkit-cni-bridge"));
}

TEST_F(NetworkModeTest, TheBridgeIsCniByName) {
  AddBridgePlugin();
  EXPECT_EQ(NameOf(Options("bridge")), "cni");
}

TEST_F(NetworkModeTest, ABadNameOfTheBridgeIsRefused) {
  AddBridgePlugin();
  for (const std::string name : {"", "a/b", "sixteen_letters_", "..", "a b"}) {
    NetworkOptions options = Options("bridge");
    options.bridge_name = name;
    EXPECT_THAT(NewDefaultNetwork(options),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("bridge name")))
        << name;
  }
}

TEST_F(NetworkModeTest, ABadSubnetIsRefused) {
  AddBridgePlugin();
  for (const std::string subnet : {"", "10.0.0.0", "10.0.0.0/", "10.0.0/8", "10.0.0.0/31",
                                   "10.0.0.0/x", "x/8", "10.0.0.0/0"}) {
    NetworkOptions options = Options("bridge");
    options.bridge_subnet = subnet;
    EXPECT_THAT(NewDefaultNetwork(options),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("bridge subnet")))
        << subnet;
  }
}

TEST_F(NetworkModeTest, NothingIsMadeBeforeTheFirstTake) {
  AddBridgePlugin();
  AddConfig();
  EXPECT_THAT(NewDefaultNetwork(Options("bridge")), IsOk());
  EXPECT_THAT(NewDefaultNetwork(Options("cni")), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const size_t released, ReleaseUnusedNetworks(Options("cni")));
  EXPECT_EQ(released, 0U);
  EXPECT_NE(::access(dir_.Join("state").c_str(), F_OK), 0);
}

TEST_F(NetworkModeTest, AHostnameThatWouldBeMoreThanOneArgumentIsRefused) {
  AddConfig();
  AddFolder();
  STRATA_ASSERT_OK_AND_ASSIGN(const auto provider, NewDefaultNetwork(Options("cni")));
  EXPECT_THAT(provider->Take("a;B=1", std::chrono::seconds(1)),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("hostname 'a;B=1'")));
}

}  // namespace
}  // namespace strata::testing
