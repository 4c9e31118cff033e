// SPDX-License-Identifier: Apache-2.0
//
// The conformance suite on the native snapshotter, in this process and behind its socket.
#include <memory>
#include <utility>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/native/native_snapshotter.h"
#include "tests/suite/daemon_target.h"
#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

class NativeInstance : public SuiteInstance {
 public:
  explicit NativeInstance(NativeOptions options) : options_(std::move(options)) { Open(); }

  Snapshotter& snapshotter() override { return *snapshotter_; }

  void Restart() override {
    snapshotter_.reset();
    Open();
  }

 private:
  void Open() {
    auto snapshotter = NativeSnapshotter::Create(options_);
    EXPECT_THAT(snapshotter, IsOk());
    STRATA_CHECK(snapshotter.ok());
    snapshotter_ = *std::move(snapshotter);
  }

  const NativeOptions options_;
  std::unique_ptr<Snapshotter> snapshotter_;
};

std::vector<SuiteTarget> Targets() {
  std::vector<SuiteTarget> targets = OtherServerTargets("native");
  targets.push_back({.name = "InProcess", .kind = "native", .make = [](const std::string& root) {
                       return std::make_unique<NativeInstance>(
                           NativeOptions{.root = root, .allow_volatile = true});
                     }});
  targets.push_back(StrataDaemonTarget("native"));
  return targets;
}

INSTANTIATE_TEST_SUITE_P(Native, SnapshotterSuite, ::testing::ValuesIn(Targets()), SuiteTargetName);

}  // namespace
}  // namespace strata::testing
