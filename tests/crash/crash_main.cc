// SPDX-License-Identifier: Apache-2.0
//
// strata-crash: kills a real daemon again and again and checks what its root holds afterwards
// (CrashRoot).
//   --server PROGRAM          the daemon
//   --rounds N [--callers C]  N kills at random moments under load by C callers
//   --points                  a kill, and an ENOSPC, at every fault point that a script passes
//   --seed S
#include <absl/strings/str_cat.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "tests/crash/crash_root.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

struct Arguments {
  std::string server;
  int rounds = 0;
  int callers = 8;
  bool points = false;
  uint64_t seed = 1;
};

// A root whose daemon gets killed.
class KilledRoot {
 public:
  KilledRoot(const Arguments& arguments, uint64_t seed)
      : root_({.test = "crash",
               .server = arguments.server,
               .root = dir_.Join("root"),
               .folder = dir_.path(),
               .extra_arguments = {},
               .callers = arguments.callers,
               .seed = seed}) {}

  // Starts the daemon with those variables. False when it ended before it served.
  bool Start(std::map<std::string, std::string> environment) {
    return root_.Start(std::move(environment));
  }

  // Lets all callers mutate until the server has gone; it is killed after `delay`.
  void RunUntilKilled(std::chrono::microseconds delay) {
    root_.RunCallers(root_.snapshotter(), [delay] { std::this_thread::sleep_for(delay); });
  }

  // One caller takes `steps` steps, or fewer when the server goes.
  void RunScript(int steps) {
    Snapshotter& snapshotter = root_.snapshotter();
    for (int i = 0; i < steps && root_.callers().front().Step(snapshotter); ++i) {
    }
    CallContext call;
    (void)snapshotter.Cleanup(call);  // the server may have gone; Check looks
  }

  void Kill() { root_.Kill(); }

  // Until the background work of the script is done, so that its fault points have been passed too.
  void WaitIdle() {
    const auto deadline = std::chrono::steady_clock::now() + kSweepLimit;
    while (!root_.Ended() && CountRemoved() > 0 && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  bool Check() { return root_.Check(); }

  [[nodiscard]] const CrashRoot& root() const { return root_; }
  [[nodiscard]] std::string trace() const { return dir_.Join("trace"); }

 private:
  // Directories of removed snapshots that are still there.
  size_t CountRemoved() {
    size_t count = root_.NamesIn("trash").size();
    std::set<uint64_t> live;
    for (const CrashCaller& caller : root_.callers()) {
      for (const auto& [name, snapshot] : caller.state()) {
        live.insert(snapshot.id);
      }
    }
    for (const uint64_t id : root_.ids()) {
      count += !live.contains(id) && std::filesystem::exists(root_.PathOf(id)) ? 1 : 0;
    }
    return count;
  }

  TempDir dir_;
  CrashRoot root_;
};

int RunRounds(const Arguments& arguments) {
  constexpr int kMostDelayUs = 60'000;
  std::mt19937_64 random(arguments.seed);
  KilledRoot root(arguments, arguments.seed);
  for (int round = 0; round < arguments.rounds; ++round) {
    if (!root.Start({})) {
      (void)std::fprintf(stderr, "crash: the server does not start in round %d\n", round);
      return 1;
    }
    if (!root.Check()) {
      (void)std::fprintf(stderr, "crash: round %d, seed %llu\n", round,
                         static_cast<unsigned long long>(arguments.seed));
      return 1;
    }
    root.RunUntilKilled(std::chrono::microseconds(random() % kMostDelayUs));
    if (round % 50 == 49) {
      (void)std::fprintf(stderr, "crash: %d kills\n", round + 1);
    }
  }
  if (!root.Start({}) || !root.Check()) {
    return 1;
  }
  (void)std::printf("%d kills, %llu answered mutations, %zu numbers: all there\n", arguments.rounds,
                    static_cast<unsigned long long>(root.root().answered()),
                    root.root().ids().size());
  return 0;
}

// Script length: long enough that every mutation and its background work happens more than once.
constexpr int kScriptSteps = 60;

// What the script does with `fault`, then a start without it.
bool RunPoint(const Arguments& arguments, const std::string& fault, uint64_t* refused) {
  KilledRoot root(arguments, arguments.seed);
  // An earlier life, killed, so that there is something to sweep.
  if (!root.Start({})) {
    return false;
  }
  root.RunScript(kScriptSteps);
  root.Kill();
  if (root.Start({{"STRATA_FAULT", fault}})) {
    root.RunScript(kScriptSteps);
    root.WaitIdle();
    root.Kill();
  }
  *refused += root.root().refused();
  return root.Start({}) && root.Check();
}

int RunPoints(const Arguments& arguments) {
  std::map<std::string, int> passed;
  {
    KilledRoot root(arguments, arguments.seed);
    for (int life = 0; life < 2; ++life) {
      if (!root.Start({{"STRATA_FAULT_TRACE", root.trace()}})) {
        (void)std::fprintf(stderr, "crash: the server does not start\n");
        return 1;
      }
      // Before the script: afterwards there are spare directories too.
      if (!root.Check()) {
        return 1;
      }
      root.RunScript(kScriptSteps);
      root.WaitIdle();
      root.Kill();
    }
    std::ifstream trace(root.trace());
    for (std::string name; std::getline(trace, name);) {
      ++passed[name];
    }
  }
  constexpr int kEnospc = 28;
  int runs = 0;
  uint64_t refused = 0;
  for (const auto& [name, count] : passed) {
    for (const int nth : std::set<int>{1, 2, std::max(1, count / 4)}) {
      for (const std::string& suffix : {std::string(), ":" + std::to_string(kEnospc)}) {
        const std::string fault = absl::StrCat(name, ":", nth, suffix);
        if (!RunPoint(arguments, fault, &refused)) {
          (void)std::fprintf(stderr, "crash: failed with STRATA_FAULT=%s, seed %llu\n",
                             fault.c_str(), static_cast<unsigned long long>(arguments.seed));
          return 1;
        }
        ++runs;
      }
    }
    (void)std::fprintf(stderr, "crash: point %s (passed %d times): ok\n", name.c_str(), count);
  }
  (void)std::printf("%zu fault points, %d runs, %llu refused calls: all there\n", passed.size(),
                    runs, static_cast<unsigned long long>(refused));
  return passed.empty() ? 1 : 0;
}

}  // namespace
}  // namespace strata::testing

int main(int argc, char** argv) try {
  strata::testing::Arguments arguments;
  CLI::App app("kills a daemon and checks its root");
  app.add_option("--server", arguments.server)->required();
  app.add_option("--rounds", arguments.rounds);
  app.add_option("--callers", arguments.callers);
  app.add_flag("--points", arguments.points);
  app.add_option("--seed", arguments.seed);
  CLI11_PARSE(app, argc, argv);
  // The long form of the same test (./dev crash N).
  if (const char* kills = std::getenv("STRATA_CRASH_KILLS");
      kills != nullptr && !arguments.points) {
    arguments.rounds = std::atoi(kills);
  }
  return arguments.points ? strata::testing::RunPoints(arguments)
                          : strata::testing::RunRounds(arguments);
} catch (const std::exception& error) {  // of CLI11
  (void)std::fprintf(stderr, "crash: %s\n", error.what());
  return 1;
}
