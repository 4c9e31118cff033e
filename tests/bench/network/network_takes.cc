// SPDX-License-Identifier: Apache-2.0
//
// What a container's network costs a run, with the built-in bridge: `strata-bench-network RUNS`
// takes and gives back as RUNS worker processes one after another would, without a pool and with
// one of 8, two networks side by side, in network and mount namespaces of its own. Needs root and
// /usr/lib/cni. One JSON line a way: milliseconds until the network is there, and until the
// provider has gone.
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "client/network/provider.h"
#include "snapshotters/base/check.h"
#include "tests/support/loop_mount.h"
#include "tests/support/temp_dir.h"

namespace strata::bench {
namespace {

using std::chrono::steady_clock;
using Milliseconds = std::chrono::duration<double, std::milli>;

constexpr int kPoolSize = 8;
constexpr std::chrono::seconds kLimit{60};

struct Times {
  std::vector<double> taken;
  std::vector<double> whole;
};

NetworkOptions Options(const std::string& state, int network, int pool_size) {
  return {.mode = "bridge",
          .state_directory = state,
          .cni_binary_dir = "/usr/lib/cni",
          .cni_pool_size = pool_size,
          .bridge_name = "bench" + std::to_string(network),
          .bridge_subnet = "10." + std::to_string(80 + network) + ".0.0/16",
          .environment = [](const char*) { return std::string(); }};
}

// One worker process.
void RunOnce(const NetworkOptions& options, Times& times) {
  const auto start = steady_clock::now();
  auto provider = NewDefaultNetwork(options);
  STRATA_CHECK(provider.ok());
  auto network = (*provider)->Take("", kLimit);
  if (!network.ok()) {
    std::fprintf(stderr, "%s\n", network.status().ToString().c_str());
    std::exit(1);
  }
  times.taken.push_back(Milliseconds(steady_clock::now() - start).count());
  network->reset();
  provider->reset();
  times.whole.push_back(Milliseconds(steady_clock::now() - start).count());
}

double Percentile(std::vector<double> values, double part) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(part * static_cast<double>(values.size() - 1))];
}

void Report(const std::string& way, const Times& times) {
  const nlohmann::json line = {
      {"way", way},
      {"runs", times.taken.size()},
      {"take_ms", {{"p50", Percentile(times.taken, 0.5)}, {"p95", Percentile(times.taken, 0.95)}}},
      {"whole_ms", {{"p50", Percentile(times.whole, 0.5)}, {"p95", Percentile(times.whole, 0.95)}}},
  };
  std::printf("%s\n", line.dump().c_str());
}

Times Measure(const NetworkOptions& options, int runs) {
  Times times;
  for (int i = 0; i < runs; ++i) {
    RunOnce(options, times);
  }
  return times;
}

// As many runs as the pool has places fill it.
void Fill(const NetworkOptions& options) {
  (void)Measure(options, kPoolSize + 1);
}

void Bench(int runs) {
  const strata::testing::TempDir dir;
  const NetworkOptions without = Options(dir.Join("without"), 0, 0);
  Report("no pool", Measure(without, runs));
  const NetworkOptions with = Options(dir.Join("with"), 1, kPoolSize);
  Fill(with);
  Report("pool of 8", Measure(with, runs));
  for (const int pool_size : {0, kPoolSize}) {
    const NetworkOptions one = Options(dir.Join("one"), 2, pool_size);
    const NetworkOptions two = Options(dir.Join("two"), 3, pool_size);
    if (pool_size > 0) {
      Fill(one);
      Fill(two);
    }
    Times times_one;
    Times times_two;
    {
      const std::jthread first([&] { times_one = Measure(one, runs); });
      const std::jthread second([&] { times_two = Measure(two, runs); });
    }
    const std::string way = pool_size > 0 ? "pool of 8" : "no pool";
    Report(way + ", beside another network", times_one);
    Report(way + ", beside another network", times_two);
    STRATA_CHECK(ReleaseUnusedNetworks(one).ok() && ReleaseUnusedNetworks(two).ok());
  }
  STRATA_CHECK(ReleaseUnusedNetworks(with).ok());
}

}  // namespace
}  // namespace strata::bench

int main(int argc, char** argv) {
  const int runs = argc == 2 ? std::atoi(argv[1]) : 0;
  if (runs <= 0 || ::geteuid() != 0) {
    std::fprintf(stderr, "usage, as root: strata-bench-network RUNS\n");
    return 2;
  }
  STRATA_CHECK(strata::testing::EnterPrivateMountNamespace().ok());
  STRATA_CHECK(::unshare(CLONE_NEWNET) == 0);
  for (const char* folder : {"/var/lib", "/run"}) {
    STRATA_CHECK(::mount("none", folder, "tmpfs", 0, "") == 0);
  }
  strata::bench::Bench(runs);
  return 0;
}
