// SPDX-License-Identifier: Apache-2.0
//
// CrashRoot: one root, the daemon on it, and the callers that know what must be in it: every
// answered mutation is there, every record has its directory, no directory is without a record once
// the sweep has ended, no number is handed out twice. For tests only; one thread at a time, but for
// the callers' own.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "snapshotters/core/snapshotter.h"
#include "tests/crash/crash_model.h"
#include "tests/support/server_process.h"

namespace strata::testing {

// Generous: only a test that fails waits this long for the sweep.
inline constexpr std::chrono::seconds kSweepLimit{30};

class CrashRoot {
 public:
  struct Options {
    std::string test;    // how messages begin
    std::string server;  // the daemon's program
    std::string root;
    std::string folder;  // for socket and log, existing; outlives what is done to the root
    std::vector<std::string> extra_arguments;
    int callers = 1;
    uint64_t seed = 1;
  };

  explicit CrashRoot(Options options);

  // What returns bool has said on stderr why, with the log of the daemon, when that is false.

  // Starts the daemon with those variables, and does not wait.
  bool Launch(std::map<std::string, std::string> environment);
  // The same, and waits until it serves. Says nothing when the daemon has ended instead.
  bool Start(std::map<std::string, std::string> environment);

  // Lets all callers mutate through `snapshotter` until the server does not answer; `end` is what
  // they are to be hit by. The server is dead afterwards.
  void RunCallers(Snapshotter& snapshotter, const std::function<void()>& end);

  void Kill();
  bool Ended() { return server_ != nullptr && server_->Ended(); }

  // With a fresh daemon serving: everything the callers know, and nothing else.
  bool Check();

  // Says so; false, for the caller's return.
  [[nodiscard]] bool Fail(const std::string& problem) const;

  // Of the daemon that Start has started.
  [[nodiscard]] Snapshotter& snapshotter() { return *proxy_; }
  [[nodiscard]] std::vector<CrashCaller>& callers() { return callers_; }
  [[nodiscard]] const std::set<uint64_t>& ids() const { return ids_; }  // as of the last Check
  [[nodiscard]] uint64_t answered() const;
  [[nodiscard]] uint64_t refused() const;
  // Of the directory of a snapshot; with `folder`, where the kind keeps folders inside, of that
  // one.
  [[nodiscard]] std::string PathOf(uint64_t id, const std::string& folder = "") const;
  [[nodiscard]] std::set<std::string> NamesIn(const std::string& folder) const;

 private:
  bool ListAll(const std::string& prefix, std::vector<SnapshotInfo>* rows);
  [[nodiscard]] bool CheckKnown() const;
  [[nodiscard]] bool CheckDirectories() const;

  const Options options_;
  const bool overlay_;
  std::vector<CrashCaller> callers_;
  std::set<uint64_t> ids_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<Snapshotter> proxy_;
};

std::string ReadText(const std::string& path);

}  // namespace strata::testing
