// SPDX-License-Identifier: Apache-2.0
//
// strata-stargz as the snapshotter of a worker. What is fetched lazily must be there for as long as
// anybody reads it, so it is a process of its own: started by the first of the worker's processes
// that needs it, used by all of them, and ended when the last one has gone, however it went.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/file_lock.h"
#include "snapshotters/base/status.h"

namespace strata {

class StargzProcess {
 public:
  struct Options {
    std::string state;                            // the worker's state directory
    std::string root;                             // of the snapshotter
    std::map<std::string, std::string> settings;  // dotted keys and values of its file, as TOML
    std::chrono::milliseconds wait{10'000};
  };

  // Uses the one that runs, or starts it: OK when its socket is there. Errors: NotFound (no
  // strata-stargz beside this program or in PATH), InvalidArgument "failed to parse stargz
  // config: ...", Unavailable with the last line that it said.
  static StatusOr<std::unique_ptr<StargzProcess>> Use(const Options& options);

  [[nodiscard]] const std::string& socket() const { return socket_; }

 private:
  StargzProcess(std::string socket, FileLock users)
      : socket_(std::move(socket)), users_(std::move(users)) {}

  const std::string socket_;
  const FileLock users_;  // while it is held, the guard lets the process live
};

// What the guard is started with: STATE ROOT of Options. Runs strata-stargz until nobody uses it
// any more. The exit code.
int GuardStargz(const std::vector<std::string>& arguments);
inline constexpr const char* kStargzGuardVerb = "guard-stargz";

}  // namespace strata
