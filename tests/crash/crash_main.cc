// SPDX-License-Identifier: Apache-2.0
//
// strata-crash: kills a real daemon again and again and checks what its root holds afterwards:
// every answered mutation is there, every record has its directory, no directory is without a
// record once the sweep has ended, no number is handed out twice.
//   --server PROGRAM          the daemon
//   --rounds N [--callers C]  N kills at random moments under load by C callers
//   --points                  a kill, and an ENOSPC, at every fault point that a script passes
//   --seed S
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "client/dial.h"
#include "client/proxy_snapshotter.h"
#include "tests/crash/crash_model.h"
#include "tests/support/server_process.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

constexpr std::chrono::milliseconds kCallLimit{20'000};
constexpr std::chrono::seconds kSweepLimit{30};

struct Arguments {
  std::string server;
  int rounds = 0;
  int callers = 8;
  bool points = false;
  uint64_t seed = 1;
};

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// One root, its daemon, and the callers that know what must be in it.
class CrashRoot {
 public:
  CrashRoot(const Arguments& arguments, uint64_t seed) : arguments_(arguments) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < arguments.callers; ++i) {
      callers_.emplace_back("c" + std::to_string(i) + "/", random());
    }
  }

  // Starts the daemon with those variables. False when it ended before it served.
  bool Start(std::map<std::string, std::string> environment) {
    proxy_.reset();
    auto server = ServerProcess::Start({.program = arguments_.server,
                                        .root = dir_.Join("root"),
                                        .socket = dir_.Join("s"),
                                        .log = dir_.Join("log"),
                                        .extra_arguments = {"--log-level", "warn"},
                                        .environment = std::move(environment)});
    if (!server.ok()) {
      return Fail(server.status().ToString());
    }
    server_ = std::make_unique<ServerProcess>(*std::move(server));
    if (const Status status = server_->WaitServing(); !status.ok()) {
      return status.code() == StatusCode::kFailedPrecondition ? false : Fail(status.ToString());
    }
    auto channel = Dial(dir_.Join("s"), {});
    if (!channel.ok()) {
      return Fail(channel.status().ToString());
    }
    proxy_ = NewProxySnapshotter(*channel, {.call_timeout = kCallLimit});
    return true;
  }

  // Lets all callers mutate until the server has gone; it is killed after `delay`.
  void RunUntilKilled(std::chrono::microseconds delay) {
    std::vector<std::thread> threads;
    for (CrashCaller& caller : callers_) {
      threads.emplace_back([this, &caller] {
        while (caller.Step(*proxy_)) {
        }
      });
    }
    std::this_thread::sleep_for(delay);
    server_->Kill();
    for (std::thread& thread : threads) {
      thread.join();
    }
  }

  // One caller takes `steps` steps, or fewer when the server goes.
  void RunScript(int steps) {
    for (int i = 0; i < steps && callers_.front().Step(*proxy_); ++i) {
    }
    CallContext call;
    (void)proxy_->Cleanup(call);  // the server may have gone; Check looks
  }

  void Kill() { server_->Kill(); }

  // Until the background work of the script is done, so that its fault points have been passed too.
  void WaitIdle() {
    const auto deadline = std::chrono::steady_clock::now() + kSweepLimit;
    while (!server_->Ended() && CountRemoved() > 0 && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  bool Ended() { return server_->Ended(); }

  // With a fresh daemon running: everything the callers know, and nothing else.
  bool Check() {
    std::set<std::string> directories;
    for (CrashCaller& caller : callers_) {
      std::vector<SnapshotInfo> rows;
      if (!ListAll(caller.prefix(), &rows)) {
        return false;
      }
      if (const std::string problem = caller.Settle(*proxy_, rows); !problem.empty()) {
        return Fail(problem);
      }
      if (!caller.errors().empty()) {
        return Fail("a call failed: " + caller.errors().front());
      }
      records_ += rows.size();
      for (const uint64_t id : caller.TakeNewIds()) {
        if (!ids_.insert(id).second) {
          return Fail("number " + std::to_string(id) + " was handed out twice");
        }
      }
    }
    return CheckDirectories();
  }

  [[nodiscard]] uint64_t answered() const {
    uint64_t sum = 0;
    for (const CrashCaller& caller : callers_) {
      sum += caller.answered();
    }
    return sum;
  }
  [[nodiscard]] uint64_t refused() const {
    uint64_t sum = 0;
    for (const CrashCaller& caller : callers_) {
      sum += caller.refused();
    }
    return sum;
  }
  [[nodiscard]] size_t ids() const { return ids_.size(); }
  [[nodiscard]] std::string trace() const { return dir_.Join("trace"); }

 private:
  bool Fail(const std::string& problem) {
    (void)std::fprintf(stderr, "crash: %s\nlog of the server:\n%s", problem.c_str(),
                       ReadText(dir_.Join("log")).c_str());
    return false;
  }

  bool ListAll(const std::string& prefix, std::vector<SnapshotInfo>* rows) {
    CallContext call;
    auto cursor = proxy_->List(call, {"name~=\"^" + prefix + "\""});
    if (!cursor.ok()) {
      return Fail("list: " + cursor.status().ToString());
    }
    while (true) {
      auto page = (*cursor)->Next();
      if (!page.ok()) {
        return Fail("list: " + page.status().ToString());
      }
      if (page->empty()) {
        return true;
      }
      rows->insert(rows->end(), page->begin(), page->end());
    }
  }

  // snapshots/ holds one directory a record, nothing else, once the sweep has ended, and all that
  // the callers know by number; trash/ is empty.
  bool CheckDirectories() {
    size_t expected = 0;
    for (const CrashCaller& caller : callers_) {
      expected += caller.state().size();
      for (const auto& [name, snapshot] : caller.state()) {
        const std::string path = dir_.Join("root/snapshots/") + std::to_string(snapshot.id);
        if (snapshot.id != 0 && !std::filesystem::exists(path)) {
          return Fail("snapshot " + name + " has lost " + path);
        }
      }
    }
    const auto deadline = std::chrono::steady_clock::now() + kSweepLimit;
    while (true) {
      const size_t found = CountEntries("root/snapshots");
      const size_t trash = CountEntries("root/trash");
      if (found == expected && trash == 0) {
        return true;
      }
      if (std::chrono::steady_clock::now() > deadline) {
        return Fail(std::to_string(found) + " directories and " + std::to_string(trash) +
                    " in trash, expected " + std::to_string(expected) + " and 0");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  // Directories of removed snapshots that are still there.
  size_t CountRemoved() {
    size_t count = CountEntries("root/trash");
    std::set<uint64_t> live;
    for (const CrashCaller& caller : callers_) {
      for (const auto& [name, snapshot] : caller.state()) {
        live.insert(snapshot.id);
      }
    }
    for (const uint64_t id : ids_) {
      count += !live.contains(id) &&
                       std::filesystem::exists(dir_.Join("root/snapshots/") + std::to_string(id))
                   ? 1
                   : 0;
    }
    return count;
  }

  size_t CountEntries(const std::string& folder) {
    size_t count = 0;
    std::error_code error;
    for (std::filesystem::directory_iterator it(dir_.Join(folder), error), end; it != end;
         it.increment(error)) {
      ++count;
    }
    return count;
  }

  const Arguments& arguments_;
  TempDir dir_;
  std::vector<CrashCaller> callers_;
  std::set<uint64_t> ids_;
  size_t records_ = 0;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<Snapshotter> proxy_;
};

int RunRounds(const Arguments& arguments) {
  constexpr int kMostDelayUs = 60'000;
  std::mt19937_64 random(arguments.seed);
  CrashRoot root(arguments, arguments.seed);
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
                    static_cast<unsigned long long>(root.answered()), root.ids());
  return 0;
}

// Script length: long enough that every mutation and its background work happens more than once.
constexpr int kScriptSteps = 60;

// What the script does with `fault`, then a start without it.
bool RunPoint(const Arguments& arguments, const std::string& fault, uint64_t* refused) {
  CrashRoot root(arguments, arguments.seed);
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
  *refused += root.refused();
  return root.Start({}) && root.Check();
}

int RunPoints(const Arguments& arguments) {
  std::map<std::string, int> passed;
  {
    CrashRoot root(arguments, arguments.seed);
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
        const std::string fault = name + ":" + std::to_string(nth) + suffix;
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

int main(int argc, char** argv) {
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
}
