// SPDX-License-Identifier: Apache-2.0
#include "services/stargz/stargz_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <ostream>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "services/stargz/peer_settings.h"
#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

constexpr const char* kFile = "/my.toml";

// What `toml` and `flags` make of `config`.
Status Read(const std::string& toml, StargzConfig* config,
            const std::vector<std::string>& flags = {}) {
  std::vector<std::string> arguments = {"--config", kFile};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  return ReadConfig({.kind = "stargz",
                     .version = "1",
                     .read_file = [&toml](const std::string& /*path*/) -> StatusOr<std::string> {
                       return toml;
                     },
                     .settings = StargzSettings(config)},
                    arguments)
      .status();
}

struct SettingCase {
  std::string name;
  std::string toml;
  std::function<bool(const StargzConfig&)> holds;
};
void PrintTo(const SettingCase& one, std::ostream* out) {
  *out << one.toml;
}

class StargzConfigSettingTest : public ::testing::TestWithParam<SettingCase> {};

TEST_P(StargzConfigSettingTest, IsTakenFromTheFile) {
  StargzConfig config;
  EXPECT_FALSE(GetParam().holds(config)) << "the default is the same";
  ASSERT_THAT(Read(GetParam().toml, &config), IsOk());
  EXPECT_TRUE(GetParam().holds(config));
  EXPECT_THAT(config.notes, IsEmpty());
}

std::vector<SettingCase> SettingCases() {
  using C = StargzConfig;
  return {
      {"ResolveTimeout", "resolve_timeout_sec = 7",
       [](const C& c) { return c.layers.resolve_timeout == seconds(7); }},
      {"ErofsWhenComplete", "erofs_when_complete = false",
       [](const C& c) { return !c.layers.erofs_when_complete; }},
      {"StateFiles", "state_files = true", [](const C& c) { return c.state_files; }},
      {"ReserveSpace", "reserve_space = false", [](const C& c) { return !c.reserve_space; }},
      {"Budget", "budget_bytes = 1000", [](const C& c) { return c.layers.budget_bytes == 1000; }},
      {"ReadPatience", "read_patience_sec = 0",
       [](const C& c) { return c.filler.patience == seconds(0); }},
      {"InFlight", "in_flight_bytes = 1048576",
       [](const C& c) { return c.filler.in_flight_bytes == 1048576; }},
      {"RequestBytes", "request_bytes = 65536",
       [](const C& c) { return c.filler.request_bytes == 65536; }},
      {"Requests", "requests = 3", [](const C& c) { return c.filler.requests == 3; }},
      {"ReadAhead", "read_ahead_bytes = 0",
       [](const C& c) { return c.filler.read_ahead_bytes == 0; }},
      {"DecodeThreads", "decode_threads = 5",
       [](const C& c) { return c.filler.decode_threads == 5; }},
      {"TocBytes", "[limits]\ntoc_bytes = 10",
       [](const C& c) { return c.layers.limits.toc_bytes == 10; }},
      {"Entries", "limits.entries = 10", [](const C& c) { return c.layers.limits.entries == 10; }},
      {"ChunkBytes", "limits.chunk_bytes = 10",
       [](const C& c) { return c.layers.limits.chunk_bytes == 10; }},
      {"SpanBytes", "limits.span_bytes = 10",
       [](const C& c) {
         return c.layers.limits.span_blob_bytes == 10 && c.layers.limits.span_decoded_bytes == 10;
       }},
      {"PrefetchSize", "prefetch_size = 10",
       [](const C& c) { return c.layers.prefetch_bytes == 10; }},
      {"NoPrefetch", "noprefetch = true", [](const C& c) { return !c.layers.prefetch; }},
      {"NoBackgroundFetch", "no_background_fetch = true",
       [](const C& c) { return !c.layers.background_fetch && !c.filler.background; }},
      {"AllowNoVerification", "allow_no_verification = true",
       [](const C& c) { return c.layers.allow_skip_verify && !c.layers.verify.disabled; }},
      {"DisableVerification", "disable_verification = true",
       [](const C& c) { return c.layers.verify.disabled; }},
      {"FetchingTimeout", "[blob]\nfetching_timeout_sec = 7",
       [](const C& c) { return c.filler.patience == seconds(7); }},
      {"MaxRetries", "[blob]\nmax_retries = 7",
       [](const C& c) { return c.blobs.retry.attempts == 8; }},
      {"MinWait", "[blob]\nmin_wait_msec = 7",
       [](const C& c) { return c.blobs.retry.first_delay == milliseconds(7); }},
      {"MaxWait", "[blob]\nmax_wait_msec = 7000",
       [](const C& c) { return c.blobs.retry.ceiling == milliseconds(7000); }},
      {"RequestTimeout", "[resolver]\nrequest_timeout_sec = 7",
       [](const C& c) { return c.blobs.hosts.request_timeout == seconds(7); }},
      {"NoRequestTimeout", "[resolver]\nrequest_timeout_sec = -1",
       [](const C& c) { return c.blobs.hosts.request_timeout < seconds(0); }},
      {"InsecureOrigin", "[resolver.host.\"r.test:5000\"]\ninsecure = true",
       [](const C& c) {
         const auto found = c.blobs.hosts.origins.find("r.test:5000");
         return found != c.blobs.hosts.origins.end() && found->second.insecure;
       }},
  };
}

INSTANTIATE_TEST_SUITE_P(All, StargzConfigSettingTest, ::testing::ValuesIn(SettingCases()),
                         [](const auto& one) { return one.param.name; });

TEST(StargzConfigTest, ZeroOfThePeersSettingsIsTheDefault) {
  const StargzConfig defaults;
  StargzConfig config;
  ASSERT_THAT(Read("[blob]\nfetching_timeout_sec = 0\nmax_retries = 0\nmin_wait_msec = 0\n"
                   "max_wait_msec = 0\n[resolver]\nrequest_timeout_sec = 0\n",
                   &config),
              IsOk());
  EXPECT_EQ(config.filler.patience, defaults.filler.patience);
  EXPECT_EQ(config.blobs.retry.attempts, defaults.blobs.retry.attempts);
  EXPECT_EQ(config.blobs.retry.first_delay, defaults.blobs.retry.first_delay);
  EXPECT_EQ(config.blobs.retry.ceiling, defaults.blobs.retry.ceiling);
  EXPECT_EQ(config.blobs.hosts.request_timeout, defaults.blobs.hosts.request_timeout);
}

TEST(StargzConfigTest, MirrorsAreThoseOfThePeersFile) {
  StargzConfig config;
  ASSERT_THAT(Read(R"(
[[resolver.host."docker.io".mirrors]]
  host = "mirror.test:5000"
  insecure = true
  request_timeout_sec = 3
  [resolver.host."docker.io".mirrors.header]
    x-one = "1"
    x-many = ["2", "3"]
[[resolver.host."docker.io".mirrors]]
  host = "other.test"
)",
                   &config),
              IsOk());
  const OriginConfig& origin = config.blobs.hosts.origins["docker.io"];
  ASSERT_EQ(origin.mirrors.size(), 2U);
  EXPECT_EQ(origin.mirrors[0].host, "mirror.test:5000");
  EXPECT_TRUE(origin.mirrors[0].insecure);
  EXPECT_EQ(origin.mirrors[0].request_timeout, seconds(3));
  EXPECT_THAT(origin.mirrors[0].headers,
              ::testing::UnorderedElementsAre(Pair("x-one", "1"), Pair("x-many", "2"),
                                              Pair("x-many", "3")));
  EXPECT_EQ(origin.mirrors[1].host, "other.test");
  EXPECT_FALSE(origin.mirrors[1].insecure);
}

TEST(StargzConfigTest, TlsIsOfTheHostThatItIsSaidOf) {
  StargzConfig config;
  ASSERT_THAT(Read(R"(
[resolver.host."r.test"]
  ca_file = ["/a.pem", "/b.pem"]
  client_cert = "/cert.pem"
  client_key = "/key.pem"
  header = { x-team = "red" }
[[resolver.host."r.test".mirrors]]
  host = "m.test"
  ca_file = "/m.pem"
  skip_verify = true
)",
                   &config),
              IsOk());
  const OriginConfig& origin = config.blobs.hosts.origins["r.test"];
  EXPECT_EQ(origin.tls, (TlsOptions{.ca_files = {"/a.pem", "/b.pem"},
                                    .client_cert = "/cert.pem",
                                    .client_key = "/key.pem"}));
  EXPECT_THAT(origin.headers, ElementsAre(Pair("x-team", "red")));
  ASSERT_EQ(origin.mirrors.size(), 1U);
  EXPECT_EQ(origin.mirrors[0].tls, (TlsOptions{.ca_files = {"/m.pem"}, .insecure = true}));
}

TEST(StargzConfigTest, PresenterIsAutoErofsOrFuse) {
  StargzConfig config;
  EXPECT_THAT(Read("presenter = 'fuse'", &config), IsOk());
  EXPECT_EQ(config.presenter, PresenterChoice::kFuse);
  EXPECT_THAT(Read("presenter = 'erofs'", &config), IsOk());
  EXPECT_EQ(config.presenter, PresenterChoice::kErofs);
  EXPECT_THAT(Read("presenter = 'auto'", &config), IsOk());
  EXPECT_EQ(config.presenter, PresenterChoice::kAuto);
}

TEST(StargzConfigTest, TheFlagOfThePresenterOverridesTheFile) {
  StargzConfig config;
  EXPECT_THAT(Read("presenter = 'fuse'", &config, {"--presenter=erofs"}), IsOk());
  EXPECT_EQ(config.presenter, PresenterChoice::kErofs);
}

class StargzConfigPeerTest : public ::testing::TestWithParam<PeerSetting> {};

std::string TomlOf(std::string_view path) {
  return std::string(path) + " = 1";
}

TEST_P(StargzConfigPeerTest, IsAnsweredByANote) {
  StargzConfig config;
  ASSERT_THAT(Read("\n" + TomlOf(GetParam().path), &config), IsOk());
  EXPECT_THAT(config.notes,
              ElementsAre(AllOf(HasSubstr("line 2: "), HasSubstr(std::string(GetParam().path)),
                                HasSubstr(std::string(GetParam().answer)))));
}

INSTANTIATE_TEST_SUITE_P(All, StargzConfigPeerTest,
                         ::testing::ValuesIn(PeerSettingsWithoutEffect().begin(),
                                             PeerSettingsWithoutEffect().end()),
                         [](const auto& one) {
                           std::string name(one.param.path);
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

// All keys of stargz-snapshotter's file, but for those of lists and tables by host.
TEST(StargzConfigTest, EveryKeyOfThePeersFileIsKnown) {
  StargzConfig config;
  std::set<std::string> known;
  for (const ConfigKey& key : StargzSettings(&config).keys) {
    EXPECT_TRUE(known.insert(key.path).second) << key.path << " is there twice";
  }
  for (const char* key : {"http_cache_type",
                          "filesystem_cache_type",
                          "resolve_result_entry_ttl_sec",
                          "resolve_result_entry",
                          "prefetch_size",
                          "prefetch_timeout_sec",
                          "prefetch_async_size",
                          "noprefetch",
                          "no_background_fetch",
                          "debug",
                          "allow_no_verification",
                          "disable_verification",
                          "max_concurrency",
                          "no_prometheus",
                          "log_file_access",
                          "blob.valid_interval",
                          "blob.check_always",
                          "blob.chunk_size",
                          "blob.fetching_timeout_sec",
                          "blob.force_single_range_mode",
                          "blob.prefetch_chunk_size",
                          "blob.max_retries",
                          "blob.min_wait_msec",
                          "blob.max_wait_msec",
                          "directory_cache.max_lru_cache_entry",
                          "directory_cache.max_cache_fds",
                          "directory_cache.sync_add",
                          "directory_cache.direct",
                          "directory_cache.fadv_dontneed",
                          "fuse.attr_timeout",
                          "fuse.entry_timeout",
                          "fuse.passthrough",
                          "fuse.merge_buffer_size",
                          "fuse.merge_worker_count",
                          "metrics_address",
                          "debug_address",
                          "ipfs",
                          "metadata_store",
                          "fuse_manager.enable",
                          "fuse_manager.address",
                          "fuse_manager.path",
                          "fuse_manager.metrics_address",
                          "snapshotter.allow_invalid_mounts_on_restart",
                          "resolver.request_timeout_sec",
                          "resolver.host",
                          "kubeconfig_keychain.enable_keychain",
                          "kubeconfig_keychain.kubeconfig_path",
                          "cri_keychain.enable_keychain",
                          "cri_keychain.image_service_path",
                          "cri_keychain.listen_path"}) {
    EXPECT_TRUE(known.contains(key)) << key;
  }
}

struct BadCase {
  std::string name;
  std::string toml;
  int line;
  std::string said;
};
void PrintTo(const BadCase& bad, std::ostream* out) {
  *out << bad.name;
}

class StargzConfigBadTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(StargzConfigBadTest, IsRefusedByLineAndKey) {
  StargzConfig config;
  EXPECT_THAT(
      Read(GetParam().toml, &config),
      StatusIs(StatusCode::kInvalidArgument,
               AllOf(HasSubstr(kFile), HasSubstr("line " + std::to_string(GetParam().line) + ": "),
                     HasSubstr(GetParam().said))));
}

INSTANTIATE_TEST_SUITE_P(
    All, StargzConfigBadTest,
    ::testing::Values(
        BadCase{"UnknownInATable", "[blob]\nmax_retires = 1", 2, "unknown key 'blob.max_retires'"},
        BadCase{"UnknownTable", "\n[blobs]\nmax_retries = 1", 2, "unknown key 'blobs'"},
        BadCase{"UnknownListsTheTable", "[limits]\nfoo = 1", 2,
                "expected chunk_bytes, entries, span_bytes, toc_bytes"},
        BadCase{"ValueForATable", "blob = 1", 1, "'blob': expected a table"},
        BadCase{"TextForANumber", "requests = '3'", 1, "'requests': expected a whole number"},
        BadCase{"FractionForANumber", "requests = 3.5", 1, "'requests': expected a whole number"},
        BadCase{"TooSmall", "requests = 0", 1, "from 1 to 256"},
        BadCase{"TooLarge", "requests = 257", 1, "from 1 to 256"},
        BadCase{"Negative", "budget_bytes = -1", 1, "from 0"},
        BadCase{"NumberForABoolean", "noprefetch = 1", 1, "expected true or false"},
        BadCase{"UnknownPresenter", "presenter = 'nfs'", 1, "expected auto, erofs or fuse"},
        BadCase{"HostsAreTables", "[resolver]\nhost = 'a'", 2, "'resolver.host': expected a table"},
        BadCase{"MirrorsAreAList", "[resolver.host.a]\nmirrors = 'm'", 2, "list of tables"},
        BadCase{"MirrorIsATable", "[resolver.host.a]\nmirrors = ['m']", 2, "expected a table"},
        BadCase{"MirrorWithoutHost", "[[resolver.host.a.mirrors]]\ninsecure = true", 1, "'host'"},
        BadCase{"UnknownInAMirror", "[[resolver.host.a.mirrors]]\nhost = 'm'\nhots = 1", 3,
                "unknown key 'resolver.host.a.mirrors.hots'"},
        BadCase{"UnknownInAHost", "[resolver.host.a]\nmirror = 1", 2,
                "unknown key 'resolver.host.a.mirror'"},
        BadCase{"KeyWithoutCertificate", "[resolver.host.a]\nclient_key = '/k'", 1, "client_cert"},
        BadCase{"HeaderThatIsANumber", "[resolver.host.a]\nheader = { x = 1 }", 2,
                "expected a string or a list"}),
    [](const auto& one) { return one.param.name; });

// What --print-config prints of `toml`.
std::string Printed(const std::string& toml) {
  StargzConfig config;
  const auto result = ReadConfig(
      {.kind = "stargz",
       .version = "1",
       .read_file = [&toml](const std::string& /*path*/) -> StatusOr<std::string> { return toml; },
       .settings = StargzSettings(&config)},
      {"--config", kFile, "--print-config"});
  EXPECT_THAT(result, IsOk());
  const auto* print = result.ok() ? std::get_if<PrintAndExit>(&*result) : nullptr;
  return print == nullptr ? "" : print->text;
}

class StargzConfigPrintTest : public ::testing::TestWithParam<SettingCase> {};

TEST_P(StargzConfigPrintTest, IsAFileThatSaysTheSame) {
  StargzConfig config;
  ASSERT_THAT(Read(Printed(GetParam().toml), &config), IsOk());
  EXPECT_TRUE(GetParam().holds(config)) << Printed(GetParam().toml);
}

INSTANTIATE_TEST_SUITE_P(All, StargzConfigPrintTest, ::testing::ValuesIn(SettingCases()),
                         [](const auto& one) { return one.param.name; });

TEST(StargzConfigTest, PrintShowsOneNameOfAValueAndWhereItCameFrom) {
  const std::string printed = Printed("[blob]\nfetching_timeout_sec = 7\nvalid_interval = 3\n");
  EXPECT_THAT(printed, HasSubstr("\nread_patience_sec = 7  # /my.toml:2\n"));
  EXPECT_THAT(printed, Not(HasSubstr("fetching_timeout_sec")));
  EXPECT_THAT(printed, HasSubstr("\n# valid_interval has no effect  # /my.toml:3\n"));
}

TEST(StargzConfigTest, PrintKeepsSecretsOfHeaders) {
  const std::string printed =
      Printed("[resolver.host.a]\nheader = { Authorization = 'Bearer s3cr3t' }\n");
  EXPECT_THAT(printed, HasSubstr("Authorization"));
  EXPECT_THAT(printed, Not(HasSubstr("s3cr3t")));
}

}  // namespace
}  // namespace strata::testing
