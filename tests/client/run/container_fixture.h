// SPDX-License-Identifier: Apache-2.0
//
// A root file system with the probe in it, and an executor that runs it. For tests only.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/network/provider.h"
#include "client/run/executor.h"
#include "snapshotters/core/call_context.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {

// Generous: only a test that fails ever waits this long.
inline constexpr int kWaitLimitMs = 30'000;

// Polls until `condition` holds; false at the limit.
bool WaitUntil(const std::function<bool()>& condition);

// A network that the runtime makes, with nothing in it; counts what is out.
class CountingNetwork final : public NetworkProvider {
 public:
  StatusOr<std::unique_ptr<ContainerNetwork>> Take(std::string_view hostname,
                                                   std::chrono::milliseconds timeout) override;
  [[nodiscard]] const std::string& name() const override { return name_; }

  int taken = 0;
  int returned = 0;

 private:
  const std::string name_ = "none";
};

// What a container printed.
class Output {
 public:
  Output();
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::string Text() const;

 private:
  UniqueFd fd_;
};

class Containers {
 public:
  // `options.binary` "crun" is run without the view of a second cgroup tree: it refuses to work
  // where controllers are in both.
  explicit Containers(const ExecutorOptions& options = {});

  // A request for the probe with these arguments, its output in `out` and `err`.
  RunRequest Probe(std::vector<std::string> arguments);
  // Runs it; the code, or -1 with the error in error().
  int Run(const RunRequest& request);
  [[nodiscard]] const Status& error() const { return error_; }

  [[nodiscard]] std::string RootPath(const std::string& path) const;
  void WriteFile(const std::string& path, const std::string& text) const;
  // Nothing in the executor's directory, nothing mounted below, no network taken.
  [[nodiscard]] std::string Leftovers() const;

  // Of the executor; for another one on the same directory.
  [[nodiscard]] const ExecutorOptions& options() const { return options_; }

  TempDir scratch;
  CountingNetwork network;
  std::unique_ptr<Executor> executor;
  CallContext call;
  Output out;
  Output err;

 private:
  ExecutorOptions options_;
  Status error_;
};

}  // namespace strata::testing
