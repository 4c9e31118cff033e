// SPDX-License-Identifier: Apache-2.0
//
// The conformance suite on the stargz snapshotter, in this process and behind its socket: without
// lazy layers it is an overlay snapshotter like the other one.
#include <memory>
#include <utility>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/stargz/stargz_snapshotter.h"
#include "tests/snapshotters/stargz/fake_layer_store.h"
#include "tests/suite/daemon_target.h"
#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

class StargzInstance : public SuiteInstance {
 public:
  explicit StargzInstance(StargzOptions options) : options_(std::move(options)) {
    options_.open_layers = OpenFake(&layers_);
    Open();
  }

  Snapshotter& snapshotter() override { return *snapshotter_; }

  void Restart() override {
    snapshotter_.reset();
    Open();
  }

 private:
  void Open() {
    auto snapshotter = StargzSnapshotter::Create(options_);
    EXPECT_THAT(snapshotter, IsOk());
    STRATA_CHECK(snapshotter.ok());
    snapshotter_ = *std::move(snapshotter);
  }

  FakeLayers layers_;  // none
  StargzOptions options_;
  std::unique_ptr<Snapshotter> snapshotter_;
};

std::vector<SuiteTarget> Targets() {
  std::vector<SuiteTarget> targets = OtherServerTargets("stargz");
  targets.push_back({.name = "InProcess", .kind = "stargz", .make = [](const std::string& root) {
                       return std::make_unique<StargzInstance>(
                           StargzOptions{.root = root, .allow_volatile = true});
                     }});
  targets.push_back({.name = "InProcessWithMountOptions",
                     .kind = "stargz",
                     .make =
                         [](const std::string& root) {
                           return std::make_unique<StargzInstance>(
                               StargzOptions{.root = root,
                                             .allow_volatile = true,
                                             .overlay = {.mount_options = {"metacopy=off"}}});
                         },
                     .mount_options = {"metacopy=off"}});
  targets.push_back(StrataDaemonTarget("stargz"));
  return targets;
}

INSTANTIATE_TEST_SUITE_P(Stargz, SnapshotterSuite, ::testing::ValuesIn(Targets()), SuiteTargetName);

}  // namespace
}  // namespace strata::testing
