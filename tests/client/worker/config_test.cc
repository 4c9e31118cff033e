// SPDX-License-Identifier: Apache-2.0
#include "client/worker/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/worker/config_print.h"
#include "tests/client/worker/command_line.h"
#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(WorkerConfigTest, UnknownKeyIsRefusedWithLineKeyAndWhatIsKnown) {
  EXPECT_THAT(ReadConfig({}, "root = \"/r\"\n[worker.oci]\nsnapshoter = \"native\"\n"),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(StartsWith("failed to parse config: /etc/buildkit/buildkitd.toml"),
                             HasSubstr("line 3"), HasSubstr("'worker.oci.snapshoter'"),
                             HasSubstr("snapshotter, stargzSnapshotter"))));
}

TEST(WorkerConfigTest, BrokenFileIsRefusedWithItsLine) {
  EXPECT_THAT(ReadConfig({}, "root = \"/r\"\nroot = \"/s\"\n"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("line 2")));
}

TEST(WorkerConfigTest, WrongTypesAreRefused) {
  for (const std::string line :
       {"snapshotter = 1", "cniPoolSize = -1", "platforms = [1]", "labels = [\"a=b\"]",
        "gcpolicy = 1", "gckeepstorage = -1", "selinux = 1", "labels = { a = 1 }"}) {
    EXPECT_THAT(ReadConfig({}, "[worker.oci]\n" + line + "\n"),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("line 2")))
        << line;
  }
}

TEST(WorkerConfigTest, PartsOfBuildKitThatAreNotHereAreNamedAndIgnored) {
  const auto config = ReadConfig({}, R"(
insecure-entitlements = ["security.insecure"]
[grpc]
address = ["unix:///run/buildkit.sock"]
[otel]
socketPath = "/s"
[worker.containerd]
enabled = false
[frontend."dockerfile.v0"]
enabled = true
[worker.oci]
enabled = true
)");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->enabled, std::optional<bool>(true));
  EXPECT_THAT(config->warnings,
              ::testing::UnorderedElementsAre(
                  HasSubstr("'insecure-entitlements'"), HasSubstr(":3: 'grpc'"),
                  HasSubstr("'otel'"), HasSubstr("'worker.containerd'"), HasSubstr("'frontend'")));
}

TEST(WorkerConfigTest, KeysMayBeInLowerOrUpperCase) {
  EXPECT_EQ(ReadConfig({}, "[worker.oci]\nnetworkmode = \"host\"\n")->network_mode, "host");
  EXPECT_EQ(ReadConfig({}, "[worker.oci]\nNETWORKMODE = \"host\"\n")->network_mode, "host");
  EXPECT_THAT(ReadConfig({}, "[worker.oci]\nNetworkMode = \"host\"\n"),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ReadConfig({}, "[worker.oci]\nnetworkmode = \"a\"\nnetworkMode = \"b\"\n"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("twice")));
}

TEST(WorkerConfigTest, FlagGoesBeforeFileAndFileBeforeBuiltIn) {
  const auto config = ReadConfig({"--oci-worker-binary", "flag"},
                                 "[worker.oci]\nbinary = \"file\"\nbridgeName = \"file\"\n");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->binary, "flag");
  EXPECT_EQ(config->OriginOf("worker.oci.binary"), "--oci-worker-binary");
  EXPECT_EQ(config->bridge_name, "file");
  EXPECT_EQ(config->OriginOf("worker.oci.bridgeName"), "/etc/buildkit/buildkitd.toml:3");
  EXPECT_EQ(config->OriginOf("worker.oci.bridgeSubnet"), "built-in");
}

TEST(WorkerConfigTest, EmptyValueOfAFlagIsAValue) {
  const auto config = ReadConfig({"--oci-worker-binary=", "--oci-worker-gc=false"},
                                 "[worker.oci]\nbinary = \"b\"\n");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->binary, "");
  EXPECT_EQ(config->gc, std::optional<bool>(false));
}

TEST(WorkerConfigTest, MissingFileIsAnEmptyOneAndAWarningWhenItWasNamed) {
  const auto config = ReadConfig({"--config", "/no.toml"});
  ASSERT_THAT(config, IsOk());
  EXPECT_THAT(config->warnings, ElementsAre(HasSubstr("/no.toml")));
}

TEST(WorkerConfigTest, FileThatCannotBeReadIsAnError) {
  World world;
  WorkerEnvironment environment = world.Environment();
  environment.read_file = [](const std::string&) -> StatusOr<std::string> {
    return MakeStatus(StatusCode::kPermissionDenied, "DENIED");
  };
  EXPECT_THAT(
      ReadWorkerCommandLine(environment, {"--config", "/c.toml", "config"}),
      StatusIs(StatusCode::kPermissionDenied, "failed to load config from /c.toml: DENIED"));
}

TEST(WorkerConfigTest, WhatIsBehindTheVerbIsTheVerbs) {
  World world;
  const auto read = ReadWorkerCommandLine(
      world.Environment(),
      {"--root", "/r", "run", "-t", "image", "sh", "-c", "x=", "--root=", "--"});
  ASSERT_THAT(read, IsOk());
  const auto& line = std::get<WorkerCommandLine>(*read);
  EXPECT_EQ(line.config.root, "/r");
  EXPECT_EQ(line.verb, "run");
  EXPECT_THAT(line.arguments, ElementsAre("-t", "image", "sh", "-c", "x=", "--root=", "--"));
}

TEST(WorkerConfigTest, UnknownFlagIsRefused) {
  EXPECT_THAT(ReadConfig({"--oci-worker-colour=red"}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("--oci-worker-colour")));
}

TEST(WorkerConfigTest, PrintedConfigurationParsesToTheSame) {
  const auto config = ReadConfig({"--oci-worker-net", "host", "--oci-worker-labels", "a b=\"c\""},
                                 R"(
root = "/r"
[worker.oci]
enabled = false
platforms = ["linux/arm64"]
gckeepstorage = "10%"
max-parallelism = 4
[worker.oci.stargzSnapshotter]
blob.max_retries = 3
[[worker.oci.gcpolicy]]
keepBytes = "1GB"
filters = ["type==regular"]
[registry."docker.io"]
mirrors = ["m:5000"]
http = true
keypair = [{ key = "/k", cert = "/c" }]
[dns]
nameservers = ["1.1.1.1"]
)");
  ASSERT_THAT(config, IsOk());
  const std::string printed = PrintConfig(*config);
  EXPECT_THAT(printed, HasSubstr("networkMode = \"host\"  # --oci-worker-net\n"));
  const auto again = ReadConfig({}, printed);
  ASSERT_THAT(again, IsOk()) << printed;
  EXPECT_EQ(again->root, config->root);
  EXPECT_EQ(again->enabled, config->enabled);
  EXPECT_EQ(again->labels, config->labels);
  EXPECT_EQ(again->platforms, config->platforms);
  EXPECT_EQ(again->network_mode, config->network_mode);
  EXPECT_EQ(again->gc_keep_storage, config->gc_keep_storage);
  EXPECT_EQ(GcRulesOf(*again), GcRulesOf(*config));
  EXPECT_EQ(again->max_parallelism, config->max_parallelism);
  EXPECT_EQ(again->stargz, config->stargz);
  EXPECT_EQ(again->registries, config->registries);
  EXPECT_EQ(again->dns, config->dns);
}

}  // namespace
}  // namespace strata::testing
