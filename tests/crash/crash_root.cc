// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/crash_root.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>
#include <utility>

#include "client/dial.h"
#include "client/proxy_snapshotter.h"

namespace strata::testing {
namespace {

constexpr std::chrono::milliseconds kCallLimit{60'000};
constexpr std::chrono::milliseconds kConnectPoll{200};

}  // namespace

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

CrashRoot::CrashRoot(Options options)
    : options_(std::move(options)), overlay_(!options_.server.ends_with("native")) {
  std::mt19937_64 random(options_.seed);
  for (int i = 0; i < options_.callers; ++i) {
    callers_.emplace_back("c" + std::to_string(i) + "/", random());
  }
}

bool CrashRoot::Launch(std::map<std::string, std::string> environment) {
  proxy_.reset();
  std::vector<std::string> arguments = {"--log-level", "warn"};
  arguments.insert(arguments.end(), options_.extra_arguments.begin(),
                   options_.extra_arguments.end());
  auto server = ServerProcess::Start({.program = options_.server,
                                      .root = options_.root,
                                      .socket = options_.folder + "/s",
                                      .log = options_.folder + "/log",
                                      .extra_arguments = std::move(arguments),
                                      .environment = std::move(environment)});
  if (!server.ok()) {
    return Fail(server.status().ToString());
  }
  server_ = std::make_unique<ServerProcess>(*std::move(server));
  return true;
}

bool CrashRoot::Start(std::map<std::string, std::string> environment) {
  if (!Launch(std::move(environment))) {
    return false;
  }
  if (const Status status = server_->WaitServing(); !status.ok()) {
    return status.code() == StatusCode::kFailedPrecondition ? false : Fail(status.ToString());
  }
  // It listens before it answers, and a fault point may end it in between.
  const auto deadline = std::chrono::steady_clock::now() + kCallLimit;
  auto channel = Dial(options_.folder + "/s", {.wait_for_ready = kConnectPoll});
  while (!channel.ok()) {
    if (server_->Ended()) {
      return false;
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return Fail(channel.status().ToString());
    }
    channel = Dial(options_.folder + "/s", {.wait_for_ready = kConnectPoll});
  }
  proxy_ = NewProxySnapshotter(*channel, {.call_timeout = kCallLimit});
  return true;
}

void CrashRoot::RunCallers(Snapshotter& snapshotter, const std::function<void()>& end) {
  std::vector<std::thread> threads;
  for (CrashCaller& caller : callers_) {
    threads.emplace_back([&snapshotter, &caller] {
      while (caller.Step(snapshotter)) {
      }
    });
  }
  end();
  Kill();
  for (std::thread& thread : threads) {
    thread.join();
  }
  proxy_.reset();
}

void CrashRoot::Kill() {
  if (server_ != nullptr) {
    server_->Kill();
  }
}

bool CrashRoot::Check() {
  for (CrashCaller& caller : callers_) {
    std::vector<SnapshotInfo> rows;
    if (!ListAll(caller.prefix(), &rows)) {
      return false;
    }
    if (const std::string problem = caller.Settle(*proxy_, rows); !problem.empty()) {
      return Fail(problem);
    }
    if (!caller.errors().empty()) {
      return Fail("a call failed before the crash: " + caller.errors().front());
    }
    for (const uint64_t id : caller.TakeNewIds()) {
      if (!ids_.insert(id).second) {
        return Fail("number " + std::to_string(id) + " was handed out twice");
      }
    }
  }
  return CheckKnown() && CheckDirectories();
}

bool CrashRoot::ListAll(const std::string& prefix, std::vector<SnapshotInfo>* rows) {
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

// All that the callers know by number has its directory.
bool CrashRoot::CheckKnown() const {
  for (const CrashCaller& caller : callers_) {
    for (const auto& [name, snapshot] : caller.state()) {
      const std::string path = PathOf(snapshot.id, "work");
      if (snapshot.id != 0 && !std::filesystem::is_directory(path)) {
        return Fail(absl::StrCat("snapshot ", name, " has lost ", path));
      }
    }
  }
  return true;
}

// Once the sweep has ended snapshots/ holds one whole directory a record, and trash/ nothing.
bool CrashRoot::CheckDirectories() const {
  size_t expected = 0;
  for (const CrashCaller& caller : callers_) {
    expected += caller.state().size();
  }
  const auto deadline = std::chrono::steady_clock::now() + kSweepLimit;
  while (true) {
    const std::set<std::string> found = NamesIn("snapshots");
    const size_t trash = NamesIn("trash").size();
    if (found.size() == expected && trash == 0) {
      return std::all_of(found.begin(), found.end(), [this](const std::string& name) {
        const std::string path = options_.root + "/snapshots/" + name + (overlay_ ? "/fs" : "");
        return std::filesystem::is_directory(path) || Fail("no directory " + path);
      });
    }
    if (std::chrono::steady_clock::now() > deadline) {
      return Fail(std::to_string(found.size()) + " directories and " + std::to_string(trash) +
                  " in trash, expected " + std::to_string(expected) + " and 0");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

bool CrashRoot::Fail(const std::string& problem) const {
  (void)std::fprintf(stderr, "%s: %s\nlog of the server:\n%s", options_.test.c_str(),
                     problem.c_str(), ReadText(options_.folder + "/log").c_str());
  return false;
}

uint64_t CrashRoot::answered() const {
  uint64_t sum = 0;
  for (const CrashCaller& caller : callers_) {
    sum += caller.answered();
  }
  return sum;
}

uint64_t CrashRoot::refused() const {
  uint64_t sum = 0;
  for (const CrashCaller& caller : callers_) {
    sum += caller.refused();
  }
  return sum;
}

std::string CrashRoot::PathOf(uint64_t id, const std::string& folder) const {
  const std::string path = options_.root + "/snapshots/" + std::to_string(id);
  return overlay_ && !folder.empty() ? path + "/" + folder : path;
}

std::set<std::string> CrashRoot::NamesIn(const std::string& folder) const {
  std::set<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(options_.root + "/" + folder, error), end; it != end;
       it.increment(error)) {
    names.insert(it->path().filename().string());
  }
  return names;
}

}  // namespace strata::testing
