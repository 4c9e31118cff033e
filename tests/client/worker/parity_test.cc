// SPDX-License-Identifier: Apache-2.0
//
// The rows in which a worker has to be as BuildKit's OCI worker is: a flag or a key, an input, and
// the result or the exact text of the error. Row and case numbers are printed at the end.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/dial.h"
#include "client/image/image_manifest.h"
#include "client/network/provider.h"
#include "client/run/executor.h"
#include "client/worker/gc_policy.h"
#include "client/worker/id_remap.h"
#include "client/worker/platforms.h"
#include "client/worker/registry_hosts.h"
#include "client/worker/snapshotter_factory.h"
#include "client/worker/worker.h"
#include "tests/client/worker/command_line.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;
using ::testing::StartsWith;

// Cases by their row; all tests run on one thread.
std::map<int, int>& Cases() {
  static std::map<int, int> cases;
  return cases;
}

void Case(int row) {
  ++Cases()[row];
}

class Tally : public ::testing::Environment {
 public:
  void TearDown() override {
    int cases = 0;
    for (const auto& [row, count] : Cases()) {
      cases += count;
    }
    RecordAndPrint("parity rows checked: " + std::to_string(Cases().size()) + " of 19, with " +
                   std::to_string(cases) + " cases");
  }

 private:
  static void RecordAndPrint(const std::string& text) {
    (void)std::fprintf(stdout, "%s\n", text.c_str());
  }
};

const auto* const kTally = ::testing::AddGlobalTestEnvironment(new Tally);

WorkerConfig Config(const std::vector<std::string>& flags, const std::string& toml = "",
                    const World& world = {}) {
  const auto config = ReadConfig(flags, toml, world);
  EXPECT_THAT(config, IsOk());
  return config.value_or(WorkerConfig{});
}

std::string ErrorOf(const std::vector<std::string>& flags, const std::string& toml = "",
                    const World& world = {}) {
  const auto config = ReadConfig(flags, toml, world);
  return config.ok() ? "no error" : std::string(StatusMessage(config.status()));
}

template <typename T>
std::string Text(const T& result) {
  return std::string(StatusMessage(ToStatus(result)));
}

std::string Oci(const std::string& line) {
  return "[worker.oci]\n" + line + "\n";
}

World UserNamespace() {
  return {.variables = {{"USER", "me"}, {"HOME", "/home/me"}}, .in_user_namespace = true};
}

// A program that is found, but not run.
void WriteProgram(const std::string& path) {
  std::ofstream(path) << "#!/bin/sh\n";
  ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
}

TEST(ParityTest, Row01Enabled) {
  const std::vector<std::pair<std::string, std::optional<bool>>> accepted = {
      {"true", true}, {"1", true},  {"t", true},  {"TRUE", true}, {"false", false},
      {"0", false},   {"F", false}, {"auto", {}}, {"AUTO", {}},   {"", {}}};
  for (const auto& [text, meant] : accepted) {
    Case(1);
    EXPECT_EQ(Config({"--oci-worker=" + text}, Oci("enabled = true")).enabled, meant) << text;
  }
  for (const std::string text : {"maybe", "tRUE", "yes"}) {
    Case(1);
    EXPECT_EQ(ErrorOf({"--oci-worker", text}),
              "strconv.ParseBool: parsing \"" + text + "\": invalid syntax");
  }
  Case(1);
  EXPECT_EQ(Config({}, Oci("enabled = false")).enabled, std::optional<bool>(false));
  Case(1);
  EXPECT_THAT(ErrorOf({}, Oci("enabled = \"true\"")),
              EndsWith("Can't convert true(string) to bool"));
  const TempDir directory;
  Case(1);
  EXPECT_THAT(Text(CheckEnabled({}, directory.path())),
              HasSubstr("skipping oci worker, as runc does not exist"));
  Case(1);
  EXPECT_THAT(Text(CheckEnabled({.enabled = false}, directory.path())),
              StartsWith("no worker found, rebuild the buildkit daemon?"));
  Case(1);
  EXPECT_THAT(CheckEnabled({.enabled = true}, directory.path()), IsOk());
  WriteProgram(directory.Join("buildkit-runc"));
  Case(1);
  EXPECT_THAT(CheckEnabled({}, "/nowhere:" + directory.path()), IsOk());
}

TEST(ParityTest, Row02Labels) {
  using Labels = std::map<std::string, std::string>;
  Case(2);
  EXPECT_EQ(Config({"--oci-worker-labels", "a=b=c"}).labels, (Labels{{"a", "b=c"}}));
  Case(2);
  EXPECT_EQ(Config({"--oci-worker-labels", "=x"}).labels, (Labels{{"", "x"}}));
  Case(2);
  EXPECT_EQ(Config({"--oci-worker-labels", "a=1", "--oci-worker-labels", "a=2"}).labels,
            (Labels{{"a", "2"}}));
  Case(2);
  EXPECT_EQ(
      Config({"--oci-worker-labels", "a=flag"}, "[worker.oci.labels]\na = \"file\"\nb = \"file\"\n")
          .labels,
      (Labels{{"a", "flag"}, {"b", "file"}}));
  Case(2);
  EXPECT_EQ(ErrorOf({"--oci-worker-labels", "foo"}), "invalid value foo");
}

TEST(ParityTest, Row03SnapshotterNames) {
  for (const std::string name : {"native", "overlayfs", "fuse-overlayfs", "stargz"}) {
    Case(3);
    const auto plan = PlanSnapshotter(Config({"--oci-worker-snapshotter", name}));
    ASSERT_THAT(plan, IsOk());
    EXPECT_EQ(plan->name, name);
  }
  for (const std::string name : {"foo", "overlay", "Native"}) {
    Case(3);
    EXPECT_EQ(Text(PlanSnapshotter(Config({}, Oci("snapshotter = \"" + name + "\"")))),
              "unknown snapshotter name: \"" + name + "\"");
  }
  Case(3);
  EXPECT_EQ(Config({}).snapshotter, "auto");
  Case(3);
  EXPECT_EQ(Config({}, Oci("snapshotter = \"\"")).snapshotter, "auto");
}

TEST(ParityTest, Row04ProxyPath) {
  const TempDir directory;
  const std::string missing = directory.Join("no.sock");
  Case(4);
  EXPECT_EQ(Text(PlanSnapshotter(Config({"--oci-worker-proxy-snapshotter-path", missing}))),
            "snapshotter doesn't exist on \"" + missing +
                "\" (Do not include 'unix://' prefix): stat " + missing +
                ": no such file or directory");
  Case(4);
  EXPECT_THAT(PlanSnapshotter(Config({"--oci-worker-proxy-snapshotter-path", "rel.sock"})),
              StatusIs(StatusCode::kInvalidArgument, StartsWith("failed to dial \"rel.sock\"")));
  // Nobody has to listen: what is there is not connected to yet.
  const std::string dead = directory.Join("file");
  std::ofstream(dead) << "no socket";
  for (const std::string name : {"auto", "overlayfs", "stargz", "anything"}) {
    Case(4);
    const auto plan = PlanSnapshotter(
        Config({"--oci-worker-snapshotter", name, "--oci-worker-proxy-snapshotter-path", dead}));
    ASSERT_THAT(plan, IsOk());
    EXPECT_EQ(plan->name, name);
    EXPECT_EQ(plan->proxy, dead);
  }
  Case(4);
  EXPECT_EQ(Config({"--oci-worker-proxy-snapshotter-path", "/flag"},
                   Oci("proxySnapshotterPath = \"/file\""))
                .proxy_snapshotter_path,
            "/flag");
}

TEST(ParityTest, Row05Platforms) {
  const std::vector<std::pair<std::string, std::string>> accepted = {
      {"arm", "linux/arm/v7"},
      {"linux/arm", "linux/arm/v7"},
      {"linux/arm/7", "linux/arm/v7"},
      {"armhf", "linux/arm/v7"},
      {"armel", "linux/arm/v6"},
      {"linux/arm64/v8", "linux/arm64"},
      {"aarch64", "linux/arm64"},
      {"linux/amd64/v1", "linux/amd64"},
      {"LINUX/AMD64", "linux/amd64"},
      {"x86_64", "linux/amd64"},
      {"i386", "linux/386"},
      {"linux/riscv64", "linux/riscv64"},
      {"darwin/amd64", "darwin/amd64"},
      {"linux/whatever", "linux/whatever"}};
  for (const auto& [text, shown] : accepted) {
    Case(5);
    const auto platform = ParsePlatform(text);
    ASSERT_THAT(platform, IsOk()) << text;
    EXPECT_EQ(ShowPlatform(*platform), shown) << text;
  }
  Case(5);
  EXPECT_EQ(ParsePlatform("darwin")->architecture, HostPlatform().architecture);
  const std::vector<std::pair<std::string, std::string>> refused = {
      {"bogus/",
       "\"\" is an invalid component of \"bogus/\": platform specifier component must match "
       "\"^[A-Za-z0-9_-]+$\": invalid argument"},
      {"x", "\"x\": unknown operating system or architecture: invalid argument"},
      {"linux/a/b/c", "\"linux/a/b/c\": cannot parse platform specifier: invalid argument"},
      {"linux/*", "\"linux/*\": wildcards not yet supported: invalid argument"}};
  for (const auto& [text, error] : refused) {
    Case(5);
    EXPECT_EQ(ErrorOf({"--oci-worker-platform", text}), "invalid platforms: " + error);
  }
  Case(5);
  EXPECT_THAT(Config({"--oci-worker-platform", "arm64", "--oci-worker-platform", "amd64"},
                     Oci("platforms = [\"linux/386\"]"))
                  .platforms,
              ElementsAre("arm64", "amd64"));
}

TEST(ParityTest, Row06NetworkMode) {
  Case(6);
  EXPECT_EQ(Config({}).network_mode, "auto");
  Case(6);
  EXPECT_EQ(Config({"--oci-worker-net", "host"}, Oci("networkMode = \"cni\"")).network_mode,
            "host");
  Case(6);
  EXPECT_EQ(Config({"--rootless"}).network_mode, "host");
  Case(6);
  EXPECT_EQ(Config({"--rootless", "--oci-worker-net", "cni"}).network_mode, "cni");
  for (const std::string mode : {"foo", "none"}) {
    Case(6);
    EXPECT_EQ(Text(NewDefaultNetwork({.mode = mode})), "invalid network mode: \"" + mode + "\"");
  }
}

TEST(ParityTest, Row07Cni) {
  Case(7);
  EXPECT_EQ(Config({}).cni_config_path, "/etc/buildkit/cni.json");
  Case(7);
  EXPECT_EQ(Config({}).cni_binary_path, "/opt/cni/bin");
  // BuildKit reads a flag that does not exist here, and gets "".
  Case(7);
  EXPECT_EQ(Config({"--oci-cni-config-path", "/c.json"}, Oci("cniConfigPath = \"/f.json\""))
                .cni_config_path,
            "/c.json");
  Case(7);
  EXPECT_EQ(Config({}, Oci("cniConfigPath = \"/f.json\"")).cni_config_path, "/f.json");
  Case(7);
  EXPECT_EQ(Config({"--oci-cni-binary-dir", "/bin"}).cni_binary_path, "/bin");
  Case(7);
  EXPECT_EQ(Config({"--oci-cni-pool-size", "8"}, Oci("cniPoolSize = 2")).cni_pool_size, 8);
  Case(7);
  EXPECT_EQ(ErrorOf({"--oci-cni-pool-size", "many"}),
            "invalid value \"many\" for flag -oci-cni-pool-size: parse error");
  const TempDir directory;
  Case(7);
  EXPECT_EQ(Text(NewDefaultNetwork({.mode = "cni",
                                    .state_directory = directory.path(),
                                    .cni_config_path = directory.Join("no.json"),
                                    .cni_binary_dir = directory.path()})),
            "failed to read cni config \"" + directory.Join("no.json") + "\": stat " +
                directory.Join("no.json") + ": no such file or directory");
}

TEST(ParityTest, Row08Bridge) {
  Case(8);
  EXPECT_EQ(Config({}).bridge_name, "buildkit0");
  Case(8);
  EXPECT_EQ(Config({}).bridge_subnet, "10.10.0.0/16");
  Case(8);
  const WorkerConfig config = Config(
      {}, Oci("networkMode = \"bridge\"\nbridgeName = \"b\"\nbridgeSubnet = \"10.1.0.0/24\""));
  EXPECT_EQ(config.bridge_name, "b");
  EXPECT_EQ(config.bridge_subnet, "10.1.0.0/24");
}

TEST(ParityTest, Row09Binary) {
  const TempDir directory;
  const std::unique_ptr<NetworkProvider> network = NewNoNetwork();
  Case(9);
  EXPECT_EQ(Config({"--oci-worker-binary", "crun"}, Oci("binary = \"runc\"")).binary, "crun");
  Case(9);
  EXPECT_EQ(Text(Executor::Create({.directory = directory.Join("executor"), .binary = "nosuch"},
                                  *network)),
            "failed to find nosuch binary");
}

// What a worker with these flags says of itself.
WorkerInfo InfoWith(std::vector<std::string> flags, const TempDir& root) {
  flags.insert(flags.end(), {"--root", root.path(), "--oci-worker=true"});
  const World world;
  const auto worker = Worker::Open(Config(flags), world.Environment());
  EXPECT_THAT(worker, IsOk());
  return worker.ok() ? (*worker)->Info() : WorkerInfo{};
}

constexpr const char* kPrefix = "org.mobyproject.buildkit.worker.";

TEST(ParityTest, Row10AppArmorAndSelinux) {
  const TempDir root;
  const std::string apparmor = std::string(kPrefix) + "apparmor.profile";
  const std::string selinux = std::string(kPrefix) + "selinux.enabled";
  Case(10);
  WorkerInfo info = InfoWith({"--oci-worker-snapshotter", "native"}, root);
  EXPECT_EQ(info.labels.count(apparmor), 0U);
  EXPECT_EQ(info.labels[selinux], "false");
  Case(10);
  info = InfoWith({"--oci-worker-snapshotter", "native", "--oci-worker-apparmor-profile", "p",
                   "--oci-worker-selinux"},
                  root);
  EXPECT_EQ(info.labels[apparmor], "p");
  EXPECT_EQ(info.labels[selinux], "true");
  Case(10);
  EXPECT_FALSE(Config({"--oci-worker-selinux=false"}, Oci("selinux = true")).selinux);
  Case(10);
  EXPECT_EQ(ErrorOf({"--oci-worker-selinux=maybe"}),
            "invalid boolean value \"maybe\" for flag -oci-worker-selinux: parse error");
  Case(10);
  EXPECT_EQ(Config({}, Oci("apparmor-profile = \"q\"")).apparmor_profile, "q");
}

TEST(ParityTest, Row11Rootless) {
  const std::string needs =
      "rootless mode requires to be executed as the mapped root in a user namespace; you may use "
      "RootlessKit for setting up the namespace";
  for (const std::string flag : {"--oci-worker-rootless", "--oci-worker-rootless=false"}) {
    Case(11);
    EXPECT_EQ(ErrorOf({flag}), needs);
    World world = UserNamespace();
    world.effective_user = 1000;
    Case(11);
    EXPECT_EQ(ErrorOf({flag}, "", world), needs);
  }
  Case(11);
  EXPECT_TRUE(Config({"--rootless"}).rootless);
  Case(11);
  EXPECT_TRUE(Config({}, "", UserNamespace()).rootless);
  Case(11);
  EXPECT_FALSE(Config({"--rootless=false"}, "", UserNamespace()).rootless);
  Case(11);
  EXPECT_FALSE(Config({"--oci-worker-rootless=false"}, "", UserNamespace()).rootless);
  Case(11);
  EXPECT_EQ(Config({}, "", UserNamespace()).root, "/home/me/.local/share/buildkit");
  World xdg = UserNamespace();
  xdg.variables["XDG_DATA_HOME"] = "/data";
  Case(11);
  EXPECT_EQ(Config({}, "", xdg).root, "/data/buildkit");
}

TEST(ParityTest, Row12ProcessSandbox) {
  Case(12);
  EXPECT_EQ(ErrorOf({"--oci-worker-no-process-sandbox"}),
            "can't enable NoProcessSandbox without Rootless");
  Case(12);
  EXPECT_EQ(ErrorOf({}, Oci("noProcessSandbox = true")),
            "can't enable NoProcessSandbox without Rootless");
  Case(12);
  const WorkerConfig config = Config({"--rootless", "--oci-worker-no-process-sandbox"});
  EXPECT_TRUE(config.no_process_sandbox);
  EXPECT_THAT(config.warnings, ElementsAre(StartsWith("NoProcessSandbox is enabled. Note that")));
}

TEST(ParityTest, Row13GcFlags) {
  Case(13);
  EXPECT_EQ(GcRulesOf(Config({})).size(), 4U);
  Case(13);
  EXPECT_TRUE(GcRulesOf(Config({"--oci-worker-gc=false"})).empty());
  Case(13);
  EXPECT_EQ(GcRulesOf(Config({"--oci-worker-gc"}, Oci("gc = false"))).size(), 4U);
  Case(13);
  EXPECT_EQ(Config({"--oci-worker-gc-keepstorage", "9000"}).gc_keep_storage.bytes, 9'000'000'000);
  Case(13);
  EXPECT_EQ(ErrorOf({"--oci-worker-gc-keepstorage", "10%"}),
            "invalid value \"10%\" for flag -oci-worker-gc-keepstorage: parse error");
  const auto help = [](const std::string& toml) {
    World world;
    world.files[kConfigPath] = toml;
    const auto read = ReadWorkerCommandLine(world.Environment(), {"--help"});
    return read.ok() ? std::get<WorkerUsage>(*read).text : "";
  };
  Case(13);
  EXPECT_THAT(help(""), HasSubstr("--oci-worker-gc-keepstorage"));
  Case(13);
  EXPECT_THAT(help("[[worker.oci.gcpolicy]]\nall = true\n"),
              Not(HasSubstr("--oci-worker-gc-keepstorage")));
}

TEST(ParityTest, Row14SizesAndDurations) {
  const std::vector<std::pair<std::string, DiskSpace>> spaces = {
      {"", {}},
      {"512MB", {.bytes = 536870912}},
      {"512mib", {.bytes = 536870912}},
      {"1.5k", {.bytes = 1536}},
      {"2 GB", {.bytes = int64_t{2} << 30}},
      {"9000", {.bytes = 9000}},
      {"\"9000\"", {.bytes = 9000}},
      {"7b", {.bytes = 7}},
      {"10%", {.percentage = 10}}};
  for (const auto& [text, space] : spaces) {
    Case(14);
    const auto parsed = ParseDiskSpace(text);
    ASSERT_THAT(parsed, IsOk()) << text;
    EXPECT_EQ(*parsed, space) << text;
  }
  Case(14);
  EXPECT_EQ(Text(ParseDiskSpace("abc")), "invalid disk space abc");
  Case(14);
  EXPECT_EQ(Text(ParseDiskSpace("x%")), "strconv.ParseInt: parsing \"x\": invalid syntax");
  Case(14);
  EXPECT_THAT(ErrorOf({}, Oci("gckeepstorage = \"abc\"")),
              AllOf(HasSubstr("line 2"), EndsWith("unmarshal text: invalid disk space abc")));
  const std::vector<std::pair<std::string, int>> durations = {
      {"", 0}, {"48h", 172800}, {"90m30s", 5430}, {"1.5h", 5400}, {"3600", 3600}, {"100ms", 0}};
  for (const auto& [text, seconds] : durations) {
    Case(14);
    const auto parsed = ParseKeepDuration(text);
    ASSERT_THAT(parsed, IsOk()) << text;
    EXPECT_EQ(parsed->count(), seconds) << text;
  }
  Case(14);
  EXPECT_EQ(Text(ParseKeepDuration("abc")), "invalid duration abc");
  // Documented as MB; BuildKit takes it for bytes.
  Case(14);
  const WorkerConfig bare = Config({}, Oci("gckeepstorage = 9000"));
  EXPECT_EQ(bare.gc_keep_storage.bytes, 9'000'000'000);
  EXPECT_THAT(bare.warnings, ElementsAre(HasSubstr("is taken as MB")));
  Case(14);
  EXPECT_THAT(ErrorOf({}, Oci("gckeepstorage = 10000000000")),
              HasSubstr("for bytes write \"10000000000B\""));
  Case(14);
  const WorkerConfig policy = Config(
      {},
      "[[worker.oci.gcpolicy]]\nkeepBytes = \"1GB\"\nkeepDuration = 172800\nfilters = [\"a\"]\n"
      "[[worker.oci.gcpolicy]]\nall = true\nkeepBytes = 1024000000\nkeepDuration = \"48h\"\n");
  EXPECT_THAT(GcRulesOf(policy), ElementsAre(GcRule{.keep_bytes = int64_t{1} << 30,
                                                    .keep_duration = std::chrono::hours(48),
                                                    .filters = {"a"}},
                                             GcRule{.all = true,
                                                    .keep_bytes = 1024000000,
                                                    .keep_duration = std::chrono::hours(48)}));
}

TEST(ParityTest, Row15DefaultPolicy) {
  Case(15);
  const int64_t cap = 5'000'000'000;
  EXPECT_THAT(DefaultGcPolicy(cap),
              ElementsAre(GcRule{.keep_bytes = 512'000'000,
                                 .keep_duration = std::chrono::hours(48),
                                 .filters = {"type==source.local", "type==exec.cachemount",
                                             "type==source.git.checkout"}},
                          GcRule{.keep_bytes = cap, .keep_duration = std::chrono::hours(24 * 60)},
                          GcRule{.keep_bytes = cap}, GcRule{.all = true, .keep_bytes = cap}));
  Case(15);
  EXPECT_EQ((DiskSpace{.percentage = 10}).AsBytes("/nowhere/at/all"), 2'000'000'000);
  Case(15);
  EXPECT_EQ((DiskSpace{.percentage = 0}).AsBytes("/"), 0);
  // A tenth of any disk in GiB, and one more: whole gigabytes.
  Case(15);
  const int64_t tenth = (DiskSpace{.percentage = 10}).AsBytes("/");
  EXPECT_GT(tenth, 0);
  EXPECT_EQ(tenth % 1'000'000'000, 0);
}

TEST(ParityTest, Row16OtherKeys) {
  Case(16);
  EXPECT_EQ(Config({}, Oci("max-parallelism = 3")).max_parallelism, 3);
  Case(16);
  EXPECT_EQ(Config({}, Oci("defaultCgroupParent = \"p\"")).default_cgroup_parent, "p");
  Case(16);
  const DnsConfig dns = {
      .nameservers = {"1.1.1.1"}, .options = {"ndots:1"}, .search_domains = {"example.com"}};
  EXPECT_EQ(Config({},
                   "[dns]\nnameservers = [\"1.1.1.1\"]\noptions = [\"ndots:1\"]\n"
                   "searchDomains = [\"example.com\"]\n")
                .dns,
            dns);
  const World world{.files = {{"/etc/passwd", "me:x:1000:1000::/:/bin/sh\nyou:x:1001:1001::/:\n"},
                              {"/etc/subuid", "me:100000:65536\n"},
                              {"/etc/subgid", "1000:200000:10\n1000:300000:20\n"}}};
  const auto read = world.Environment().read_file;
  Case(16);
  const auto maps = ReadIdMaps("me", read);
  ASSERT_THAT(maps, IsOk());
  EXPECT_EQ(maps->uids[0].host, 100000U);
  EXPECT_EQ(maps->gids[1].container, 10U);
  const std::vector<std::pair<std::string, std::string>> refused = {
      {"a:b:c", "invalid userns remap specification in \"a:b:c\""},
      {"X",
       "failed to create ID mappings: could not get user for username X: getent unable to find "
       "entry \"X\" in passwd database"},
      {"you", "failed to create ID mappings: no subuid ranges found for user \"you\""}};
  for (const auto& [text, error] : refused) {
    Case(16);
    EXPECT_EQ(Text(ReadIdMaps(text, read)), error);
  }
  Case(16);
  std::vector<std::string> warnings;
  const auto hosts = RegistryHosts(
      Config({},
             "[registry.\"docker.io\"]\nmirrors = [\"mirror:5000/pre\", \"other\"]\n"
             "[registry.\"mirror:5000\"]\nhttp = true\n[registry.\"other\"]\ninsecure = true\n")
          .registries,
      &warnings);
  ASSERT_THAT(hosts, IsOk());
  const std::vector<RegistryHost> asked =
      HostsFor({.host = "docker.io", .repository = "library/x", .tag = "1"}, *hosts);
  ASSERT_EQ(asked.size(), 3U);
  EXPECT_EQ(asked[0].scheme + "://" + asked[0].host + asked[0].path, "http://mirror:5000/v2/pre");
  EXPECT_EQ(asked[1].scheme + "://" + asked[1].host + asked[1].path, "https://other/v2");
  EXPECT_TRUE(asked[1].tls.insecure);
  EXPECT_EQ(asked[2].host, "registry-1.docker.io");
  Case(16);
  EXPECT_THAT(Text(RegistryHosts({{"h", {.ca_files = {"/no/ca.pem"}}}}, &warnings)),
              StartsWith("failed to read /no/ca.pem"));
  Case(16);
  EXPECT_THAT(
      Text(RegistryHosts({{"h", {.key_pairs = {{.key = "/no/k", .cert = "/no/c"}}}}}, &warnings)),
      StartsWith("failed to load keypair for /no/c"));
}

TEST(ParityTest, Row17Stargz) {
  Case(17);
  EXPECT_THAT(Config({},
                     "[worker.oci.stargzSnapshotter]\nnoprefetch = true\n"
                     "[worker.oci.stargzSnapshotter.blob]\nmax_retries = 7\n"
                     "[worker.oci.stargzSnapshotter.x.\"a b\"]\nlist = [\"1\", \"2\"]\n")
                  .stargz,
              ElementsAre(Pair("blob.max_retries", "7"), Pair("noprefetch", "true"),
                          Pair("x.\"a b\".list", "[\"1\", \"2\"]")));
  Case(17);
  EXPECT_THAT(ErrorOf({}, "[worker.oci.stargzSnapshotter]\nprefetch_size = 1.5\n"),
              HasSubstr("failed to parse stargz config"));
  // Registries are BuildKit's, not the snapshotter's own.
  Case(17);
  std::vector<std::string> warnings;
  const auto hosts = RegistryHosts(
      {{"h:1", {.mirrors = {"m"}, .http = true}}, {"m", {.insecure = true}}}, &warnings);
  ASSERT_THAT(hosts, IsOk());
  EXPECT_THAT(StargzResolver(*hosts),
              ::testing::Contains(Pair("resolver.host.\"h:1\".mirrors",
                                       "[{ host = \"https://m\", skip_verify = true }]")));
}

TEST(ParityTest, Row18Auto) {
  const TempDir directory;
  const auto works = [](const std::string&) { return OkStatus(); };
  const auto fails = [](const std::string&) {
    return MakeStatus(StatusCode::kFailedPrecondition, "ERR");
  };
  const std::string& root = directory.path();
  Case(18);
  EXPECT_EQ(ChooseSnapshotter(root, {.overlayfs = works, .fuse_overlayfs = fails})->kind,
            "overlayfs");
  Case(18);
  const auto second = ChooseSnapshotter(root, {.overlayfs = fails, .fuse_overlayfs = works});
  EXPECT_EQ(second->kind, "fuse-overlayfs");
  EXPECT_THAT(second->reasons, ElementsAre("auto snapshotter: overlayfs is not available for " +
                                           root + ", trying fuse-overlayfs: ERR"));
  Case(18);
  const auto third = ChooseSnapshotter(root, {.overlayfs = fails, .fuse_overlayfs = fails});
  EXPECT_EQ(third->kind, "native");
  EXPECT_EQ(third->reasons.back(), "auto snapshotter: fuse-overlayfs is not available for " + root +
                                       ", falling back to native: ERR");
  Case(18);
  const auto plan = PlanSnapshotter({.root = root}, {.overlayfs = fails, .fuse_overlayfs = works});
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->name, "fuse-overlayfs");
}

TEST(ParityTest, Row19Identity) {
  const TempDir root;
  Case(19);
  const WorkerInfo info =
      InfoWith({"--oci-worker-snapshotter", "native", "--oci-worker-labels", "com.example=x",
                "--oci-worker-labels", std::string(kPrefix) + "hostname=mine",
                "--oci-worker-apparmor-profile", "p", "--oci-worker-net", "host"},
               root);
  const auto label = [](const std::string& name, const std::string& value) {
    return Pair(std::string(kPrefix) + name, value);
  };
  EXPECT_THAT(info.labels,
              ::testing::UnorderedElementsAre(
                  label("executor", "oci"), label("snapshotter", "native"),
                  label("hostname", "mine"), label("network", "host"),
                  label("oci.process-mode", "sandbox"), label("selinux.enabled", "false"),
                  label("apparmor.profile", "p"), Pair("com.example", "x")));
  Case(19);
  struct stat file {};
  ASSERT_EQ(::stat(root.Join("runc-native/workerid").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777U, 0400U);
  Case(19);
  ASSERT_EQ(::stat(root.Join("runc-native").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777U, 0700U);
  Case(19);
  EXPECT_THAT(info.id, ::testing::MatchesRegex("[0-9a-z]+"));
  EXPECT_EQ(info.id.size(), 25U);
  Case(19);
  EXPECT_EQ(InfoWith({"--oci-worker-snapshotter", "native"}, root).id, info.id);
  Case(19);
  ASSERT_EQ(::unlink(root.Join("runc-native/workerid").c_str()), 0);
  EXPECT_NE(InfoWith({"--oci-worker-snapshotter", "native"}, root).id, info.id);
  Case(19);
  EXPECT_EQ(NetworkLabel({.network_mode = "bridge"}), "cni");
}

}  // namespace
}  // namespace strata::testing
