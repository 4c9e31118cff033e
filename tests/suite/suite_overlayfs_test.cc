// SPDX-License-Identifier: Apache-2.0
//
// The conformance suite on the overlayfs snapshotter, in this process and behind its socket.
#include <memory>
#include <utility>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/overlayfs/overlayfs_snapshotter.h"
#include "tests/suite/daemon_target.h"
#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

class OverlayfsInstance : public SuiteInstance {
 public:
  explicit OverlayfsInstance(OverlayfsOptions options) : options_(std::move(options)) { Open(); }

  Snapshotter& snapshotter() override { return *snapshotter_; }

  void Restart() override {
    snapshotter_.reset();
    Open();
  }

 private:
  void Open() {
    auto snapshotter = OverlayfsSnapshotter::Create(options_);
    EXPECT_THAT(snapshotter, IsOk());
    STRATA_CHECK(snapshotter.ok());
    snapshotter_ = *std::move(snapshotter);
  }

  const OverlayfsOptions options_;
  std::unique_ptr<Snapshotter> snapshotter_;
};

std::vector<SuiteTarget> Targets() {
  std::vector<SuiteTarget> targets = OtherServerTargets("overlayfs");
  targets.push_back({.name = "InProcess", .kind = "overlayfs", .make = [](const std::string& root) {
                       return std::make_unique<OverlayfsInstance>(
                           OverlayfsOptions{.root = root, .allow_volatile = true});
                     }});
  targets.push_back({.name = "InProcessWithMountOptions",
                     .kind = "overlayfs",
                     .make =
                         [](const std::string& root) {
                           return std::make_unique<OverlayfsInstance>(
                               OverlayfsOptions{.root = root,
                                                .allow_volatile = true,
                                                .overlay = {.mount_options = {"metacopy=off"}}});
                         },
                     .mount_options = {"metacopy=off"}});
  targets.push_back(StrataDaemonTarget("overlayfs"));
  return targets;
}

INSTANTIATE_TEST_SUITE_P(Overlayfs, SnapshotterSuite, ::testing::ValuesIn(Targets()),
                         SuiteTargetName);

}  // namespace
}  // namespace strata::testing
