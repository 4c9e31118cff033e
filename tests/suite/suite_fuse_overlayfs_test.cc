// SPDX-License-Identifier: Apache-2.0
//
// The conformance suite on the fuse-overlayfs snapshotter, in this process and behind its socket.
#include <memory>
#include <utility>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/fuse_overlayfs/fuse_overlayfs_snapshotter.h"
#include "tests/suite/daemon_target.h"
#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

class FuseOverlayfsInstance : public SuiteInstance {
 public:
  explicit FuseOverlayfsInstance(FuseOverlayfsOptions options) : options_(std::move(options)) {
    Open();
  }

  Snapshotter& snapshotter() override { return *snapshotter_; }

  void Restart() override {
    snapshotter_.reset();
    Open();
  }

 private:
  void Open() {
    auto snapshotter = FuseOverlayfsSnapshotter::Create(options_);
    EXPECT_THAT(snapshotter, IsOk());
    STRATA_CHECK(snapshotter.ok());
    snapshotter_ = *std::move(snapshotter);
  }

  const FuseOverlayfsOptions options_;
  std::unique_ptr<Snapshotter> snapshotter_;
};

std::vector<SuiteTarget> Targets() {
  std::vector<SuiteTarget> targets = OtherServerTargets("fuse-overlayfs");
  targets.push_back(
      {.name = "InProcess", .kind = "fuse-overlayfs", .make = [](const std::string& root) {
         return std::make_unique<FuseOverlayfsInstance>(
             FuseOverlayfsOptions{.root = root, .allow_volatile = true});
       }});
  targets.push_back(StrataDaemonTarget("fuse-overlayfs"));
  return targets;
}

INSTANTIATE_TEST_SUITE_P(FuseOverlayfs, SnapshotterSuite, ::testing::ValuesIn(Targets()),
                         SuiteTargetName);

}  // namespace
}  // namespace strata::testing
