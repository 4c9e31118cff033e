// SPDX-License-Identifier: Apache-2.0
//
// Containers' networks with Debian's CNI plugins, in a network namespace that each test makes for
// itself: nothing of the machine's network is touched. Several providers on one state folder are
// what several worker processes are.
#include "client/network/cni_network.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/network/cni_namespaces.h"
#include "client/network/namespace_thread.h"
#include "client/network/provider.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/os/mount_ops.h"
#include "tests/client/network/fake_plugin.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr seconds kLimit{30};  // a test that waits longer has failed
constexpr const char* kPlugins = "/usr/lib/cni";

bool Eventually(const std::function<bool()>& holds) {
  const auto end = steady_clock::now() + kLimit;
  while (!holds()) {
    if (steady_clock::now() > end) {
      return false;
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

// IPv4 addresses of the calling thread's namespace, without loopback's.
std::vector<std::string> Addresses() {
  ifaddrs* all = nullptr;
  EXPECT_EQ(::getifaddrs(&all), 0);
  std::vector<std::string> addresses;
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr != nullptr && one->ifa_addr->sa_family == AF_INET &&
        std::string(one->ifa_name) != "lo") {
      char text[INET_ADDRSTRLEN] = {};
      ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr, text,
                  sizeof(text));
      addresses.emplace_back(text);
    }
  }
  ::freeifaddrs(all);
  return addresses;
}

std::vector<std::string> AddressesIn(const std::string& netns) {
  std::vector<std::string> addresses;
  EXPECT_THAT(RunInNetworkNamespace(netns,
                                    [&] {
                                      addresses = Addresses();
                                      return OkStatus();
                                    }),
              IsOk());
  return addresses;
}

std::set<std::string> Interfaces() {
  std::set<std::string> names;
  struct if_nameindex* all = ::if_nameindex();
  for (const struct if_nameindex* one = all; one != nullptr && one->if_index != 0; ++one) {
    names.insert(one->if_name);
  }
  ::if_freenameindex(all);
  return names;
}

std::set<std::string> InterfacesIn(const std::string& netns) {
  std::set<std::string> names;
  EXPECT_THAT(RunInNetworkNamespace(netns,
                                    [&] {
                                      names = Interfaces();
                                      return OkStatus();
                                    }),
              IsOk());
  return names;
}

// A listening socket in the calling thread's namespace, and its port.
std::pair<UniqueFd, in_port_t> Listen() {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof(address);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::listen(fd.get(), 16), 0);
  EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  return {std::move(fd), address.sin_port};
}

Status ConnectFrom(const std::string& netns, const std::string& address, in_port_t port) {
  return RunInNetworkNamespace(netns, [&]() -> Status {
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const timeval limit{.tv_sec = 10, .tv_usec = 0};
    (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = port;
    EXPECT_EQ(::inet_pton(AF_INET, address.c_str(), &to.sin_addr), 1);
    return ::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0
               ? OkStatus()
               : ErrnoStatus(errno, "connect to " + address);
  });
}

std::vector<std::string> Entries(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class CniNetworkMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: network namespaces need root";
    }
    ASSERT_THAT(EnterPrivateMountNamespace(), IsOk());
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    // host-local's and iptables' own state.
    for (const char* folder : {"/var/lib", "/run"}) {
      ASSERT_EQ(::mount("none", folder, "tmpfs", 0, ""), 0) << folder;
    }
    dir_ = std::make_unique<TempDir>();
  }

  void TearDown() override {
    // The test's mounts are in the folder; its namespaces go with them.
    dir_.reset();
    for (const char* folder : {"/var/lib", "/run"}) {
      (void)::umount2(folder, MNT_DETACH);
    }
  }

  [[nodiscard]] std::string State() const { return dir_->Join("state"); }
  [[nodiscard]] std::string Folder() const { return State() + "/net/cni"; }
  [[nodiscard]] std::vector<std::string> Waiting() const { return Entries(Folder() + "/pool"); }
  // What there is but for the folder of the pool, and the lock that who fills it has for a moment.
  [[nodiscard]] std::vector<std::string> Files() const {
    std::vector<std::string> names = Entries(Folder());
    std::erase_if(names, [](const auto& name) { return name == "pool" || name == "fill.lock"; });
    return names;
  }

  // A conf of the plugin "bridge" with a subnet of its own.
  NetworkOptions BridgeConf(const std::string& name, const std::string& subnet, int pool_size = 0) {
    const json conf = {{"cniVersion", "1.0.0"},
                       {"name", name},
                       {"type", "bridge"},
                       {"bridge", name},
                       {"isDefaultGateway", true},
                       {"ipMasq", true},
                       {"ipam", {{"type", "host-local"}, {"subnet", subnet}}}};
    const std::string path = dir_->Join(name + ".json");
    std::ofstream(path) << conf;
    return Options("cni", path, kPlugins, pool_size);
  }

  // A conf of one fake plugin.
  NetworkOptions FakeConf(const std::string& name, const FakePlugins& plugins, int pool_size = 0) {
    const json conf = {{"cniVersion", "1.0.0"}, {"name", name}, {"type", "fake"}};
    const std::string path = dir_->Join(name + ".conf");
    std::ofstream(path) << conf;
    return Options("cni", path, plugins.folder(), pool_size);
  }

  NetworkOptions Options(const std::string& mode, const std::string& config,
                         const std::string& plugins, int pool_size) {
    return {.mode = mode,
            .state_directory = State(),
            .cni_config_path = config,
            .cni_binary_dir = plugins,
            .cni_pool_size = pool_size,
            .environment = [this](const char* name) { return environment_[name]; }};
  }

  static std::unique_ptr<NetworkProvider> Provider(const NetworkOptions& options) {
    auto provider = NewDefaultNetwork(options);
    EXPECT_THAT(provider, IsOk());
    return *std::move(provider);
  }

  static std::unique_ptr<ContainerNetwork> Take(NetworkProvider& provider,
                                                const std::string& hostname = "") {
    auto network = provider.Take(hostname, kLimit);
    EXPECT_THAT(network, IsOk());
    return network.ok() ? *std::move(network) : nullptr;
  }

  // Fills the pool, as runs before would have.
  void FillPool(const NetworkOptions& options) {
    const auto provider = Provider(options);
    auto network = Take(*provider);
    network.reset();
    EXPECT_TRUE(
        Eventually([&] { return Waiting().size() >= static_cast<size_t>(options.cni_pool_size); }));
  }

  // The pool looks as if everything in it had waited for so long.
  void Age(std::chrono::minutes age) {
    timespec times[2] = {};
    ASSERT_EQ(::clock_gettime(CLOCK_REALTIME, &times[0]), 0);
    times[0].tv_sec -= std::chrono::seconds(age).count();
    times[1] = times[0];
    for (const std::string& id : Waiting()) {
      ASSERT_EQ(::utimensat(AT_FDCWD, (Folder() + "/pool/" + id).c_str(), times, 0), 0);
    }
  }

  std::unique_ptr<TempDir> dir_;
  std::map<std::string, std::string> environment_;
};

std::string IdOf(const ContainerNetwork& network) {
  return fs::path(network.path()).filename();
}

// --- one network

TEST_F(CniNetworkMountTest, AContainerReachesItsGateway) {
  const auto provider = Provider(BridgeConf("nb0", "10.87.0.0/24"));
  const auto network = Take(*provider);
  ASSERT_NE(network, nullptr);
  EXPECT_EQ(network->kind(), ContainerNetwork::Kind::kPath);
  EXPECT_THAT(InterfacesIn(network->path()), ElementsAre("eth0", "lo"));
  EXPECT_THAT(AddressesIn(network->path()), ElementsAre("10.87.0.2"));
  const auto [listener, port] = Listen();
  EXPECT_THAT(ConnectFrom(network->path(), "10.87.0.1", port), IsOk());
}

TEST_F(CniNetworkMountTest, LoopbackIsUp) {
  const auto provider = Provider(BridgeConf("nb0", "10.87.0.0/24"));
  const auto network = Take(*provider);
  ASSERT_NE(network, nullptr);
  EXPECT_THAT(RunInNetworkNamespace(network->path(),
                                    [] {
                                      const auto [listener, port] = Listen();
                                      const UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
                                      sockaddr_in to{};
                                      to.sin_family = AF_INET;
                                      to.sin_port = port;
                                      to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
                                      return ::connect(fd.get(), reinterpret_cast<sockaddr*>(&to),
                                                       sizeof(to)) == 0
                                                 ? OkStatus()
                                                 : ErrnoStatus(errno, "connect");
                                    }),
              IsOk());
}

TEST_F(CniNetworkMountTest, NothingIsLeftOfAContainer) {
  {
    const auto provider = Provider(BridgeConf("nb0", "10.87.0.0/24"));
    ASSERT_NE(Take(*provider), nullptr);
  }
  EXPECT_THAT(Files(), IsEmpty());
  EXPECT_THAT(Waiting(), IsEmpty());
  EXPECT_THAT(Interfaces(), ElementsAre("lo", "nb0"));
  EXPECT_THAT(Entries("/var/lib/cni/networks/nb0"), Not(Contains("10.87.0.2")));
}

TEST_F(CniNetworkMountTest, TwoNetworksAreSideBySide) {
  const auto one = Provider(BridgeConf("nb0", "10.87.0.0/24"));
  const auto two = Provider(BridgeConf("nb1", "10.88.0.0/24"));
  const auto in_one = Take(*one);
  const auto in_two = Take(*two);
  ASSERT_TRUE(in_one != nullptr && in_two != nullptr);
  EXPECT_THAT(AddressesIn(in_one->path()), ElementsAre("10.87.0.2"));
  EXPECT_THAT(AddressesIn(in_two->path()), ElementsAre("10.88.0.2"));
  const auto [listener, port] = Listen();
  EXPECT_THAT(ConnectFrom(in_one->path(), "10.87.0.1", port), IsOk());
  EXPECT_THAT(ConnectFrom(in_two->path(), "10.88.0.1", port), IsOk());
}

// --- the pool

TEST_F(CniNetworkMountTest, APoolOfTwoIsFilledBehindTheFirstTake) {
  const NetworkOptions options = BridgeConf("nb0", "10.87.0.0/24", 2);
  const auto provider = Provider(options);
  const auto network = Take(*provider);
  ASSERT_NE(network, nullptr);
  EXPECT_TRUE(Eventually([&] { return Waiting().size() == 1; })) << "one is in use";
}

TEST_F(CniNetworkMountTest, TheNextProcessGetsOneThatIsReady) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  const NetworkOptions options = FakeConf("net", plugins, 2);
  FillPool(options);
  const std::vector<std::string> before = Waiting();
  const size_t calls = plugins.Calls().size();
  const auto provider = Provider(options);
  const auto network = Take(*provider);
  ASSERT_NE(network, nullptr);
  EXPECT_THAT(before, Contains(IdOf(*network)));
  EXPECT_THAT(plugins.Calls(), SizeIs(calls)) << "none was set up";
  EXPECT_THAT(Waiting(), Not(Contains(IdOf(*network))));
}

TEST_F(CniNetworkMountTest, TheOneThatCameLastIsTakenFirst) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  const NetworkOptions options = FakeConf("net", plugins, 3);
  FillPool(options);
  auto provider = Provider(options);
  auto one = Take(*provider);
  auto two = Take(*provider);
  ASSERT_TRUE(one != nullptr && two != nullptr);
  const std::string last = IdOf(*one);
  two.reset();
  one.reset();
  // Nobody looks after the pool, with a lock on what waits, while another one begins to.
  provider.reset();
  provider = Provider(options);
  EXPECT_EQ(IdOf(*Take(*provider)), last);
}

TEST_F(CniNetworkMountTest, APoolOfEightServesConcurrentTakes) {
  constexpr size_t kCount = 12;
  const NetworkOptions options = BridgeConf("nb0", "10.87.0.0/24", 8);
  FillPool(options);
  const auto one = Provider(options);
  const auto two = Provider(options);  // another process
  std::vector<std::unique_ptr<ContainerNetwork>> taken(kCount);
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < kCount; ++i) {
      threads.emplace_back([&, i] { taken[i] = Take(i % 2 == 0 ? *one : *two); });
    }
  }
  std::set<std::string> addresses;
  for (const auto& network : taken) {
    ASSERT_NE(network, nullptr);
    for (const std::string& address : AddressesIn(network->path())) {
      addresses.insert(address);
    }
  }
  EXPECT_THAT(addresses, SizeIs(kCount));
}

TEST_F(CniNetworkMountTest, WhatTheContainerCouldChangeIsNotGivenToAnother) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  const NetworkOptions options = FakeConf("net", plugins, 1);
  const auto provider = Provider(options);
  auto network = Take(*provider);
  ASSERT_NE(network, nullptr);
  const std::string id = IdOf(*network);
  network->Spoil();
  network.reset();
  EXPECT_THAT(Waiting(), Not(Contains(id)));
  EXPECT_THAT(Files(), Not(Contains(id)));
  EXPECT_THAT(plugins.Calls(), Contains("DEL fake"));
}

TEST_F(CniNetworkMountTest, AHostnameGetsANewOneWithItsArguments) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  const NetworkOptions options = FakeConf("net", plugins, 1);
  FillPool(options);
  const std::vector<std::string> before = Waiting();
  {
    const auto provider = Provider(options);
    const auto network = Take(*provider, "box");
    ASSERT_NE(network, nullptr);
    EXPECT_THAT(before, Not(Contains(IdOf(*network))));
    EXPECT_THAT(plugins.EnvironmentOf("ADD", "fake"),
                HasSubstr("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=box\n"));
  }
  EXPECT_THAT(plugins.EnvironmentOf("DEL", "fake"),
              HasSubstr("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=box\n"));
  EXPECT_EQ(Waiting(), before);
}

TEST_F(CniNetworkMountTest, AnotherConfigurationGetsNoneOfThem) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  FillPool(FakeConf("net", plugins, 1));
  const std::vector<std::string> before = Waiting();
  const auto provider = Provider(FakeConf("other", plugins, 1));
  const auto network = Take(*provider);
  ASSERT_NE(network, nullptr);
  EXPECT_THAT(before, Not(Contains(IdOf(*network))));
  EXPECT_EQ(Waiting(), before) << "and those stay for a while";
}

TEST_F(CniNetworkMountTest, SpareOnesGoWhenTheyHaveWaitedLong) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  FillPool(FakeConf("net", plugins, 3));
  const NetworkOptions smaller = FakeConf("net", plugins, 1);
  {
    const auto provider = Provider(smaller);
    ASSERT_NE(Take(*provider), nullptr);
  }
  EXPECT_THAT(Waiting(), SizeIs(3)) << "not yet five minutes";
  Age(std::chrono::minutes(6));
  const auto provider = Provider(smaller);
  const auto network = Take(*provider);
  EXPECT_TRUE(Eventually([&] { return Waiting().size() == 1; }));
}

TEST_F(CniNetworkMountTest, ThoseOfAnOldConfigurationGoWhenTheyHaveWaitedLong) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  FillPool(FakeConf("net", plugins, 2));
  Age(std::chrono::minutes(6));
  const auto provider = Provider(FakeConf("other", plugins));
  const auto network = Take(*provider);
  EXPECT_TRUE(Eventually([&] { return Waiting().empty(); }));
}

TEST_F(CniNetworkMountTest, APoolThatIsNotKeptGoesWithItsProvider) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  NetworkOptions options = FakeConf("net", plugins, 2);
  options.keep_pool = false;
  FillPool(options);
  EXPECT_THAT(Waiting(), IsEmpty());
  EXPECT_THAT(Files(), IsEmpty());
}

// --- what was left

TEST_F(CniNetworkMountTest, WhatAKilledProcessLeftIsReleased) {
  const NetworkOptions options = BridgeConf("nb0", "10.87.0.0/24");
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto provider = Provider(options);
    const auto network = Take(*provider);
    ::_exit(network != nullptr ? 0 : 1);
  }
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  ASSERT_EQ(state, 0);
  ASSERT_THAT(Files(), SizeIs(3));
  const std::string left = Files()[0];
  const auto provider = Provider(options);
  const auto network = Take(*provider);
  ASSERT_NE(network, nullptr);
  EXPECT_TRUE(Eventually([&] { return Files().size() == 3; }));
  EXPECT_THAT(Files(), Not(Contains(left)));
  EXPECT_THAT(Entries("/var/lib/cni/networks/nb0"), Not(Contains("10.87.0.2")));
}

TEST_F(CniNetworkMountTest, WhatIsInUseIsNotTakenForALeftover) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  const NetworkOptions options = FakeConf("net", plugins);
  const auto one = Provider(options);
  const auto network = Take(*one);
  ASSERT_NE(network, nullptr);
  STRATA_ASSERT_OK_AND_ASSIGN(const size_t released, ReleaseUnusedNetworks(options));
  EXPECT_EQ(released, 0U);
  EXPECT_TRUE(IsNamespaceFile(network->path()));
}

TEST_F(CniNetworkMountTest, AfterARestartOfTheMachineTheFilesAreOnlyFiles) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  const NetworkOptions options = FakeConf("net", plugins, 1);
  FillPool(options);
  ASSERT_THAT(Waiting(), SizeIs(1));
  const std::string old = Waiting()[0];
  ASSERT_THAT(Unmount(Folder() + "/" + old, /*lazy=*/true), IsOk());
  const auto provider = Provider(options);
  const auto network = Take(*provider);
  ASSERT_NE(network, nullptr);
  EXPECT_NE(IdOf(*network), old);
  EXPECT_TRUE(IsNamespaceFile(network->path()));
  EXPECT_TRUE(Eventually([&] { return !fs::exists(Folder() + "/" + old + ".lock"); }));
  EXPECT_THAT(plugins.EnvironmentOf("DEL", "fake"), HasSubstr("CNI_NETNS=\n"));
}

TEST_F(CniNetworkMountTest, UnusedOnesAreReleasedOnDemand) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  const NetworkOptions options = FakeConf("net", plugins, 2);
  FillPool(options);
  STRATA_ASSERT_OK_AND_ASSIGN(const size_t released, ReleaseUnusedNetworks(options));
  EXPECT_EQ(released, 2U);
  EXPECT_THAT(Files(), IsEmpty());
}

// --- failures

TEST_F(CniNetworkMountTest, AFailureIsUndoneAndNamed) {
  FakePlugins plugins;
  plugins.Add("fake", "[ $CNI_COMMAND = DEL ] || { echo '{\"msg\":\"no room\"}'; exit 1; }");
  const auto provider = Provider(FakeConf("net", plugins, 2));
  EXPECT_THAT(provider->Take("", kLimit),
              StatusIs(StatusCode::kUnavailable, "CNI setup error: plugin \"fake\": no room"));
  EXPECT_THAT(plugins.Calls(), ElementsAre("ADD fake", "DEL fake"));
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(CniNetworkMountTest, APluginThatHangsEndsAtTheDeadline) {
  FakePlugins plugins;
  plugins.Add("fake", "[ $CNI_COMMAND = DEL ] || sleep 1000");
  const auto provider = Provider(FakeConf("net", plugins));
  EXPECT_THAT(provider->Take("", milliseconds(200)),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("CNI setup error: plugin")));
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(CniNetworkMountTest, AHangBehindTheScenesDoesNotHoldUpTheEnd) {
  FakePlugins plugins;
  plugins.Add("fake",
              "[ $CNI_COMMAND = DEL ] && exit; echo '{}'; [ ! -e first ] || { echo > second; "
              "sleep 1000; }; echo > first");
  const auto start = steady_clock::now();
  {
    const auto provider = Provider(FakeConf("net", plugins, 2));
    ASSERT_NE(Take(*provider), nullptr);
    EXPECT_TRUE(Eventually([&] { return fs::exists(plugins.Note("second")); }));
  }
  EXPECT_LT(steady_clock::now() - start, kLimit);
  EXPECT_THAT(Waiting(), SizeIs(1)) << "the one that was taken";
}

TEST_F(CniNetworkMountTest, ADelThatFailsTakesTheNamespaceAway) {
  FakePlugins plugins;
  plugins.Add("fake", "[ $CNI_COMMAND = ADD ] || exit 1; echo '{}'");
  const auto provider = Provider(FakeConf("net", plugins));
  ASSERT_NE(Take(*provider), nullptr);
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(CniNetworkMountTest, TheFirstSetupWaitsForTheInitLock) {
  FakePlugins plugins;
  plugins.Add("fake", "echo '{}'");
  environment_["BUILDKIT_CNI_INIT_LOCK_PATH"] = dir_->Join("init.lock");
  STRATA_ASSERT_OK_AND_ASSIGN(
      UniqueFd lock, OpenFile(dir_->Join("init.lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(::flock(lock.get(), LOCK_EX), 0);
  const auto provider = Provider(FakeConf("net", plugins));
  EXPECT_THAT(provider->Take("", milliseconds(50)),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("init.lock")));
  EXPECT_THAT(plugins.Calls(), IsEmpty());
  lock.Reset();
  EXPECT_NE(Take(*provider), nullptr);
}

// --- mode "bridge"

TEST_F(CniNetworkMountTest, TheBuiltInBridgeWorksAndGoesAgain) {
  {
    const auto provider = Provider(Options("bridge", "", kPlugins, 0));
    const auto network = Take(*provider);
    ASSERT_NE(network, nullptr);
    EXPECT_THAT(AddressesIn(network->path()), ElementsAre("10.10.0.2"));
    EXPECT_THAT(Interfaces(), Contains("buildkit0"));
    const auto [listener, port] = Listen();
    EXPECT_THAT(ConnectFrom(network->path(), "10.10.0.1", port), IsOk());
  }
  EXPECT_THAT(Interfaces(), ElementsAre("lo"));
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(CniNetworkMountTest, ABridgeStaysWhileSomebodyUsesIt) {
  const NetworkOptions options = Options("bridge", "", kPlugins, 0);
  auto one = Provider(options);
  const auto two = Provider(options);
  ASSERT_NE(Take(*one), nullptr);
  const auto network = Take(*two);
  ASSERT_NE(network, nullptr);
  one.reset();
  EXPECT_THAT(Interfaces(), Contains("buildkit0"));
}

TEST_F(CniNetworkMountTest, ABridgeThatWasThereStays) {
  NetworkOptions options = Options("bridge", "", kPlugins, 0);
  options.bridge_name = "mine0";
  options.bridge_subnet = "10.86.0.0/16";
  // Made by somebody else.
  const auto other = Provider(BridgeConf("mine0", "10.86.0.0/16"));
  ASSERT_NE(Take(*other), nullptr);
  {
    const auto provider = Provider(options);
    ASSERT_NE(Take(*provider), nullptr);
  }
  EXPECT_THAT(Interfaces(), Contains("mine0"));
}

TEST_F(CniNetworkMountTest, AReleaseOnDemandTakesTheBridgeWithThePool) {
  const NetworkOptions options = Options("bridge", "", kPlugins, 1);
  FillPool(options);
  EXPECT_THAT(Interfaces(), Contains("buildkit0"));
  STRATA_ASSERT_OK_AND_ASSIGN(const size_t released, ReleaseUnusedNetworks(options));
  EXPECT_EQ(released, 1U);
  EXPECT_THAT(Interfaces(), ElementsAre("lo"));
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(CniNetworkMountTest, BehindRootlessKitTheBridgeIsInItsNamespace) {
  const std::string kit = dir_->Join("kit");
  ASSERT_EQ(::mkdir(kit.c_str(), 0755), 0);
  ASSERT_THAT(MakeNetworkNamespace(kit, "netns"), IsOk());
  environment_["ROOTLESSKIT_STATE_DIR"] = kit;
  {
    const auto provider = Provider(Options("bridge", "", kPlugins, 0));
    const auto network = Take(*provider);
    ASSERT_NE(network, nullptr);
    EXPECT_THAT(Interfaces(), ElementsAre("lo"));
    EXPECT_THAT(InterfacesIn(kit + "/netns"), Contains("buildkit0"));
  }
  EXPECT_THAT(InterfacesIn(kit + "/netns"), ElementsAre("lo"));
  EXPECT_THAT(RemoveNamespaceFile(kit + "/netns"), IsOk());
}

}  // namespace
}  // namespace strata::testing
