// SPDX-License-Identifier: Apache-2.0
//
// The conformance suite on the fuse-overlayfs snapshotter, in this process and behind its socket.
#include <sys/stat.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/fuse_overlayfs/fuse_overlayfs_snapshotter.h"
#include "snapshotters/os/id_mapping.h"
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

class FuseOverlayfsSettingsTest : public ::testing::Test {
 protected:
  // Options of an active over one layer that has mapping labels, and the owner of its files.
  void Prepare(const OverlaySettings& settings) {
    STRATA_SUITE_NEEDS_ROOT();
    STRATA_ASSERT_OK_AND_ASSIGN(
        const auto snapshotter,
        FuseOverlayfsSnapshotter::Create(
            {.root = dir_.Join("root"), .allow_volatile = true, .overlay = settings}));
    CallContext call;
    ASSERT_THAT(snapshotter->Prepare(call, "new", "", {}), IsOk());
    ASSERT_THAT(snapshotter->Commit(call, "base", "new", {}), IsOk());
    const Labels labels = {{std::string(kUidMappingLabel), "0:10000:65536"}};
    STRATA_ASSERT_OK_AND_ASSIGN(const auto mounts,
                                snapshotter->Prepare(call, "container", "base", labels));
    ASSERT_EQ(mounts.size(), 1U);
    options_ = mounts[0].options;
    struct stat found {};
    ASSERT_EQ(::stat(OwnDirectory(mounts).c_str(), &found), 0);
    owner_ = found.st_uid;
  }

  const TempDir dir_;
  std::vector<std::string> options_;
  uid_t owner_ = 0;
};

TEST_F(FuseOverlayfsSettingsTest, IdsAreMappedUnlessTold) {
  ASSERT_NO_FATAL_FAILURE(Prepare({}));
  EXPECT_THAT(options_, ::testing::Contains("uidmapping=0:10000:65536"));
  EXPECT_EQ(owner_, 0U);  // on disk it has the container's id
}

TEST_F(FuseOverlayfsSettingsTest, WithoutMappingTheOwnerIsTheOneOnTheHost) {
  ASSERT_NO_FATAL_FAILURE(Prepare({.remap_ids = RemapIds::kOff}));
  EXPECT_THAT(options_, ::testing::Not(::testing::Contains(::testing::HasSubstr("mapping="))));
  EXPECT_EQ(owner_, 10000U);
}

TEST_F(FuseOverlayfsSettingsTest, ContainersHaveTheOptionsOfTheOperator) {
  ASSERT_NO_FATAL_FAILURE(
      Prepare({.mount_options = {"squash_to_root"}, .volatile_containers = true}));
  EXPECT_THAT(options_, ::testing::IsSupersetOf({"volatile", "squash_to_root"}));
}

}  // namespace
}  // namespace strata::testing
