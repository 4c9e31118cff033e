// SPDX-License-Identifier: Apache-2.0
//
// The config.json of containers: the one that was captured from BuildKit, and each rule by itself.
#include "client/run/runtime_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "client/run/seccomp_profile.h"
#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using Json = nlohmann::json;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Kind = ContainerNetwork::Kind;

class RuntimeSpecTest : public ::testing::Test {
 protected:
  RuntimeSpecTest() {
    request_.process.args = {"/bin/sh", "-c", "true"};
    input_.id = "abc";
    input_.rootfs = "/x/abc/rootfs";
    input_.resolv_conf = "/x/abc/resolv.conf";
    input_.hosts = "/x/abc/hosts";
    input_.user = {0, 0, {0}};
    facts_.seccomp = true;
    facts_.cgroup_mount = true;
    facts_.capabilities = {"CAP_CHOWN", "CAP_SYS_ADMIN"};
  }

  Json Spec() {
    StatusOr<Json> spec = RuntimeSpec(request_, input_, options_, facts_);
    EXPECT_THAT(spec, IsOk());
    return spec.ok() ? *std::move(spec) : Json();
  }
  Status Error() { return RuntimeSpec(request_, input_, options_, facts_).status(); }

  static std::vector<std::string> Types(const Json& namespaces) {
    std::vector<std::string> types;
    for (const Json& entry : namespaces) {
      types.push_back(entry["type"]);
    }
    return types;
  }
  static std::vector<std::string> Destinations(const Json& spec) {
    std::vector<std::string> destinations;
    for (const Json& mount : spec["mounts"]) {
      destinations.push_back(mount["destination"]);
    }
    return destinations;
  }
  static Json MountAt(const Json& spec, const std::string& destination) {
    for (const Json& mount : spec["mounts"]) {
      if (mount["destination"] == destination) {
        return mount;
      }
    }
    return {};
  }

  RunRequest request_;
  SpecInput input_;
  ExecutorOptions options_;
  HostFacts facts_;
};

TEST_F(RuntimeSpecTest, IsTheOneThatBuildKitWrites) {
  const Json capabilities = {
      "CAP_CHOWN",   "CAP_DAC_OVERRIDE", "CAP_FSETID",           "CAP_FOWNER",
      "CAP_MKNOD",   "CAP_NET_RAW",      "CAP_SETGID",           "CAP_SETUID",
      "CAP_SETFCAP", "CAP_SETPCAP",      "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
      "CAP_KILL",    "CAP_AUDIT_WRITE"};
  Json golden = Json::parse(R"({
    "ociVersion": "1.1.0-rc.2",
    "process": {
      "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
      "args": ["/bin/sh", "-c", "true"],
      "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
      "cwd": "/"
    },
    "root": {"path": "/x/abc/rootfs"},
    "hostname": "buildkitsandbox",
    "mounts": [
      {"destination": "/proc", "type": "proc", "source": "proc",
       "options": ["nosuid", "noexec", "nodev"]},
      {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
       "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
      {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
       "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
      {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
       "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
      {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
       "options": ["nosuid", "noexec", "nodev"]},
      {"destination": "/sys", "type": "sysfs", "source": "sysfs",
       "options": ["nosuid", "noexec", "nodev", "ro"]},
      {"destination": "/etc/resolv.conf", "type": "bind", "source": "/x/abc/resolv.conf",
       "options": ["nosuid", "noexec", "nodev", "rbind", "ro"]},
      {"destination": "/etc/hosts", "type": "bind", "source": "/x/abc/hosts",
       "options": ["nosuid", "noexec", "nodev", "rbind", "ro"]},
      {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
       "options": ["ro", "nosuid", "noexec", "nodev"]}
    ],
    "linux": {
      "resources": {"devices": [{"allow": false, "access": "rwm"}]},
      "cgroupsPath": "/buildkit/abc",
      "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
      "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
        "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
        "/sys/firmware", "/sys/devices/virtual/powercap", "/proc/scsi"],
      "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    }
  })");
  for (const char* set : {"bounding", "effective", "permitted"}) {
    golden["process"]["capabilities"][set] = capabilities;
  }
  Json spec = Spec();
  const Json seccomp = spec["linux"]["seccomp"];
  spec["linux"].erase("seccomp");
  EXPECT_EQ(spec, golden) << spec.dump(1) << "\n" << Json::diff(golden, spec).dump(1);
  EXPECT_EQ(seccomp["defaultAction"], "SCMP_ACT_ERRNO");
}

// --- process

TEST_F(RuntimeSpecTest, AnImagesPathStays) {
  request_.process.env = {"A=1", "PATH=/opt", "A=2"};
  EXPECT_EQ(Spec()["process"]["env"], Json({"A=2", "PATH=/opt"}));
}

TEST_F(RuntimeSpecTest, ATerminalHasAType) {
  request_.process.streams.terminal = true;
  input_.console = {24, 80};
  EXPECT_EQ(Spec()["process"]["terminal"], true);
  EXPECT_EQ(Spec()["process"]["consoleSize"], Json({{"height", 24}, {"width", 80}}));
  EXPECT_THAT(Spec()["process"]["env"], Contains(Json("TERM=xterm")));
  request_.process.env = {"TERM=vt100"};
  EXPECT_THAT(Spec()["process"]["env"], Contains(Json("TERM=vt100")));
}

TEST_F(RuntimeSpecTest, EnvironmentNeedsNames) {
  request_.process.env = {"NAKED"};
  EXPECT_THAT(Error(),
              StatusIs(StatusCode::kInvalidArgument, "environment 'NAKED': expected NAME=VALUE"));
}

TEST_F(RuntimeSpecTest, ArgumentsAreNeededAndAreText) {
  request_.process.args = {std::string("a\0b", 3)};
  EXPECT_THAT(Error(), StatusIs(StatusCode::kInvalidArgument, HasSubstr("NUL")));
  request_.process.args.clear();
  EXPECT_THAT(Error(), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(RuntimeSpecTest, LimitsAreThereOnlyWhenGiven) {
  EXPECT_FALSE(Spec()["process"].contains("rlimits"));
  request_.ulimits = {{"nofile", 1024}};
  EXPECT_EQ(Spec()["process"]["rlimits"],
            Json::parse(R"([{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}])"));
  request_.ulimits = {{"NO FILE", 1}};
  EXPECT_THAT(Error(), StatusIs(StatusCode::kInvalidArgument, HasSubstr("'NO FILE'")));
}

TEST_F(RuntimeSpecTest, NewPrivilegesAreNotForbidden) {
  EXPECT_FALSE(Spec()["process"].contains("noNewPrivileges"));
}

TEST_F(RuntimeSpecTest, UserAndWorkingDirectoryAreTheProcesss) {
  input_.user = {33, 34, {34, 4}};
  request_.process.cwd = "srv//x/../www/";
  const Json process = Spec()["process"];
  EXPECT_EQ(process["user"], Json::parse(R"({"uid": 33, "gid": 34, "additionalGids": [34, 4]})"));
  EXPECT_EQ(process["cwd"], "/srv/www");
}

// --- namespaces and cgroups

TEST_F(RuntimeSpecTest, TheHostsNetworkIsNoNamespace) {
  EXPECT_THAT(Types(Spec()["linux"]["namespaces"]), Not(Contains("network")));
  input_.network = Kind::kNone;
  EXPECT_EQ(Spec()["linux"]["namespaces"].back(), Json({{"type", "network"}}));
  input_.network = Kind::kPath;
  input_.network_path = "/net/1";
  EXPECT_EQ(Spec()["linux"]["namespaces"].back(), Json({{"type", "network"}, {"path", "/net/1"}}));
}

TEST_F(RuntimeSpecTest, TheCgroupNamespaceIsThereWhereTheHostHasIt) {
  EXPECT_THAT(Types(Spec()["linux"]["namespaces"]), Not(Contains("cgroup")));
  facts_.cgroup_namespace = true;
  EXPECT_THAT(Types(Spec()["linux"]["namespaces"]), Contains("cgroup"));
}

TEST_F(RuntimeSpecTest, TheCgroupMountIsThereWhereTheHostHasIt) {
  facts_.cgroup_mount = false;
  EXPECT_THAT(Destinations(Spec()), Not(Contains("/sys/fs/cgroup")));
}

TEST_F(RuntimeSpecTest, CgroupsPathsFollowTheParent) {
  EXPECT_EQ(CgroupsPath("", "id"), "/buildkit/id");
  EXPECT_EQ(CgroupsPath("top/../mine", "id"), "/mine/buildkit/id");
  EXPECT_EQ(CgroupsPath("system.slice:worker:", "id"), "system.slice:worker:id");
  EXPECT_EQ(CgroupsPath("system.slice", "id"), "/system.slice/buildkit/id");
}

TEST_F(RuntimeSpecTest, TheRequestsCgroupParentWins) {
  options_.default_cgroup_parent = "worker";
  EXPECT_EQ(Spec()["linux"]["cgroupsPath"], "/worker/buildkit/abc");
  request_.cgroup_parent = "mine";
  EXPECT_EQ(Spec()["linux"]["cgroupsPath"], "/mine/buildkit/abc");
}

TEST_F(RuntimeSpecTest, IdMapsMakeAUserNamespace) {
  options_.uid_map = {{0, 100000, 65536}};
  options_.gid_map = {{0, 200000, 65536}};
  const Json part = Spec()["linux"];
  EXPECT_THAT(Types(part["namespaces"]), Contains("user"));
  EXPECT_EQ(part["uidMappings"],
            Json::parse(R"([{"containerID": 0, "hostID": 100000, "size": 65536}])"));
  EXPECT_EQ(part["gidMappings"][0]["hostID"], 200000);
}

TEST_F(RuntimeSpecTest, MappedIdsHaveANewSysfsWithANetworkOfTheirOwnOnly) {
  EXPECT_EQ(MountAt(Spec(), "/sys")["type"], "sysfs");
  options_.uid_map = {{0, 100000, 65536}};
  EXPECT_EQ(MountAt(Spec(), "/sys")["type"], "bind");
  EXPECT_THAT(MountAt(Spec(), "/sys")["options"], Contains("rbind"));
  EXPECT_THAT(MountAt(Spec(), "/sys")["options"], Contains("ro"));
  input_.network = ContainerNetwork::Kind::kNone;
  EXPECT_EQ(MountAt(Spec(), "/sys")["type"], "sysfs");
}

TEST_F(RuntimeSpecTest, ATerminalsGroupIsLeftOutWhereItIsNotMapped) {
  facts_.terminal_group = false;
  EXPECT_THAT(MountAt(Spec(), "/dev/pts")["options"], Not(Contains(Json("gid=5"))));
}

// --- security

TEST_F(RuntimeSpecTest, WithoutSeccompInTheKernelThereIsNone) {
  facts_.seccomp = false;
  EXPECT_FALSE(Spec()["linux"].contains("seccomp"));
}

TEST_F(RuntimeSpecTest, AppArmorProfilesAreNamed) {
  EXPECT_FALSE(Spec()["process"].contains("apparmorProfile"));
  options_.apparmor_profile = "worker";
  EXPECT_EQ(Spec()["process"]["apparmorProfile"], "worker");
  request_.insecure = true;
  EXPECT_FALSE(Spec()["process"].contains("apparmorProfile"));
}

TEST_F(RuntimeSpecTest, SelinuxHasToBeThere) {
  options_.selinux = true;
  EXPECT_THAT(Error(), StatusIs(StatusCode::kFailedPrecondition, "selinux is not available"));
}

TEST_F(RuntimeSpecTest, SelinuxLabelsShareTheirCategories) {
  options_.selinux = true;
  facts_.selinux = {"u:r:container_t:s0", "u:r:container_file_t:s0"};
  const Json spec = Spec();
  const std::string process = spec["process"]["selinuxLabel"];
  const std::string file = spec["linux"]["mountLabel"];
  EXPECT_THAT(process, ::testing::MatchesRegex("u:r:container_t:s0:c[0-9]+,c[0-9]+"));
  EXPECT_EQ(process.substr(process.rfind(':')), file.substr(file.rfind(':')));
}

TEST_F(RuntimeSpecTest, AnInsecureContainerIsOpen) {
  request_.insecure = true;
  const Json spec = Spec();
  EXPECT_FALSE(spec["linux"].contains("seccomp"));
  EXPECT_FALSE(spec["linux"].contains("maskedPaths"));
  EXPECT_FALSE(spec["linux"].contains("readonlyPaths"));
  for (const char* set : {"bounding", "effective", "permitted", "inheritable", "ambient"}) {
    EXPECT_EQ(spec["process"]["capabilities"][set], Json(facts_.capabilities)) << set;
  }
  EXPECT_THAT(MountAt(spec, "/sys")["options"], Contains(Json("rw")));
  EXPECT_THAT(MountAt(spec, "/sys/fs/cgroup")["options"], Contains(Json("rw")));
  EXPECT_THAT(spec["linux"]["resources"]["devices"], Each(::testing::Truly([](const Json& rule) {
                return rule["allow"] == true && rule["access"] == "rwm";
              })));
  const Json& devices = spec["linux"]["devices"];
  EXPECT_TRUE(std::any_of(devices.begin(), devices.end(),
                          [](const Json& device) { return device["path"] == "/dev/fuse"; }));
  facts_.user_namespace = true;
  EXPECT_FALSE(Spec()["linux"].contains("devices"));
}

TEST_F(RuntimeSpecTest, WithoutProcessSandboxTheHostsProcessesAreInView) {
  options_.rootless = options_.no_process_sandbox = true;
  const Json spec = Spec();
  EXPECT_THAT(Types(spec["linux"]["namespaces"]), Not(Contains("pid")));
  EXPECT_EQ(
      MountAt(spec, "/proc"),
      Json::parse(
          R"({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]})"));
  EXPECT_EQ(spec["linux"]["maskedPaths"], Json({"/sys/firmware", "/sys/devices/virtual/powercap"}));
  EXPECT_EQ(spec["linux"]["readonlyPaths"], Json::array());
}

TEST_F(RuntimeSpecTest, RootlessHasNeitherSysfsNorCgroups) {
  options_.rootless = true;
  const Json spec = Spec();
  EXPECT_THAT(Destinations(spec), Not(Contains(HasSubstr("/sys"))));
  EXPECT_FALSE(spec["linux"].contains("resources"));
  EXPECT_EQ(spec["linux"]["cgroupsPath"], "");
}

// --- root and mounts

TEST_F(RuntimeSpecTest, AReadOnlyRootSaysSo) {
  EXPECT_FALSE(Spec()["root"].contains("readonly"));
  request_.read_only_root = true;
  EXPECT_EQ(Spec()["root"]["readonly"], true);
}

TEST_F(RuntimeSpecTest, ExtraMountsComeLastAndAsTheyAre) {
  input_.mounts = {{"/data/", {"bind", "/host", "", {"rbind", "ro"}}}};
  EXPECT_EQ(Spec()["mounts"].back(),
            Json::parse(
                R"({"destination": "/data", "type": "bind", "source": "/host",
                    "options": ["rbind", "ro"]})"));
}

TEST_F(RuntimeSpecTest, OfTwoMountsAtOnePlaceTheLastCountsWhereTheFirstStood) {
  const std::vector<std::string> before = Destinations(Spec());
  input_.mounts = {{"/dev/shm", {"tmpfs", "first", "", {}}},
                   {"/dev/shm", {"tmpfs", "second", "", {}}}};
  const Json spec = Spec();
  EXPECT_EQ(Destinations(spec), before);
  EXPECT_EQ(MountAt(spec, "/dev/shm")["source"], "second");
}

TEST_F(RuntimeSpecTest, MountsAreBelowTheRoot) {
  for (const char* destination : {"data", "/", "/x/.."}) {
    input_.mounts = {{destination, {"bind", "/host", "", {}}}};
    EXPECT_THAT(Error(), StatusIs(StatusCode::kInvalidArgument, HasSubstr(destination)));
  }
}

// --- one more process

TEST_F(RuntimeSpecTest, AnotherProcessHasTheContainersEnvironmentAndItsOwn) {
  request_.process.env = {"A=1", "B=1"};
  request_.process.cwd = "/srv";
  ProcessRequest more{.args = {"ls"}, .env = {"B=2"}, .user = {}, .cwd = {}, .streams = {}};
  StatusOr<Json> process = ExecProcess(Spec(), more, nullptr, {});
  ASSERT_THAT(process, IsOk());
  EXPECT_EQ((*process)["args"], Json({"ls"}));
  EXPECT_THAT((*process)["env"], Contains(Json("A=1")));
  EXPECT_THAT((*process)["env"], Contains(Json("B=2")));
  EXPECT_EQ((*process)["cwd"], "/srv");
  EXPECT_EQ((*process)["user"]["uid"], 0);
  more.cwd = "/tmp";
  const ProcessUser user{7, 8, {8}};
  process = ExecProcess(Spec(), more, &user, {});
  ASSERT_THAT(process, IsOk());
  EXPECT_EQ((*process)["cwd"], "/tmp");
  EXPECT_EQ((*process)["user"]["uid"], 7);
}

TEST_F(RuntimeSpecTest, AnotherProcessNeedsAConfigurationWithOne) {
  EXPECT_THAT(ExecProcess(Json::array(), {.args = {"ls"}}, nullptr, {}),
              StatusIs(StatusCode::kDataLoss));
}

// --- seccomp

class SeccompProfileTest : public ::testing::Test {
 protected:
  // Rules that name the call.
  static std::vector<Json> RulesFor(const Json& profile, const std::string& call) {
    std::vector<Json> rules;
    for (const Json& rule : profile["syscalls"]) {
      const Json& names = rule["names"];
      if (std::find(names.begin(), names.end(), call) != names.end()) {
        rules.push_back(rule);
      }
    }
    return rules;
  }
};

TEST_F(SeccompProfileTest, HasThirteenGroupsForTheDefaultCapabilities) {
  const std::vector<std::string> capabilities = {"CAP_CHOWN", "CAP_SYS_CHROOT"};
  const Json profile = SeccompProfile("amd64", capabilities);
  EXPECT_EQ(profile["syscalls"].size(), 13U);
  EXPECT_EQ(profile["architectures"], Json({"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"}));
  EXPECT_EQ(profile["defaultAction"], "SCMP_ACT_ERRNO");
}

TEST_F(SeccompProfileTest, CallsDependOnCapabilities) {
  EXPECT_TRUE(RulesFor(SeccompProfile("amd64", {}), "chroot").empty());
  const std::vector<std::string> chroot = {"CAP_SYS_CHROOT"};
  EXPECT_EQ(RulesFor(SeccompProfile("amd64", chroot), "chroot").size(), 1U);
  EXPECT_TRUE(RulesFor(SeccompProfile("amd64", chroot), "mount").empty());
  const std::vector<std::string> admin = {"CAP_SYS_ADMIN"};
  EXPECT_EQ(RulesFor(SeccompProfile("amd64", admin), "mount").size(), 1U);
}

TEST_F(SeccompProfileTest, CloneMakesNoNamespaces) {
  const Json profile = SeccompProfile("amd64", {});
  const std::vector<Json> clone = RulesFor(profile, "clone");
  ASSERT_EQ(clone.size(), 1U);
  EXPECT_EQ(clone[0]["args"],
            Json::parse(R"([{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}])"));
  const std::vector<Json> clone3 = RulesFor(profile, "clone3");
  ASSERT_EQ(clone3.size(), 1U);
  EXPECT_EQ(clone3[0],
            Json::parse(R"({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})"));
  EXPECT_EQ(RulesFor(SeccompProfile("s390x", {}), "clone")[0]["args"][0]["index"], 1);
}

TEST_F(SeccompProfileTest, CallsDependOnTheArchitecture) {
  EXPECT_EQ(RulesFor(SeccompProfile("amd64", {}), "arch_prctl").size(), 1U);
  EXPECT_TRUE(RulesFor(SeccompProfile("arm64", {}), "arch_prctl").empty());
  EXPECT_EQ(RulesFor(SeccompProfile("arm64", {}), "cacheflush").size(), 1U);
}

TEST_F(SeccompProfileTest, NeitherKeysNorRingsNorTheHostsSocketsAreAllowed) {
  const Json profile = SeccompProfile("amd64", {});
  for (const char* call : {"add_key", "keyctl", "io_uring_setup", "mount", "setns", "kexec_load"}) {
    EXPECT_TRUE(RulesFor(profile, call).empty()) << call;
  }
  EXPECT_EQ(RulesFor(profile, "socket")[0]["args"][0]["value"], 40);
}

}  // namespace
}  // namespace strata::testing
