// SPDX-License-Identifier: Apache-2.0
//
// What an operator may choose about overlay layers, on the overlayfs snapshotter.
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/os/id_mapping.h"
#include "snapshotters/os/idmap_probe.h"
#include "snapshotters/overlayfs/overlayfs_snapshotter.h"
#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

const Labels kMapped = {{std::string(kUidMappingLabel), "0:100000:65536,65536:0:1"},
                        {std::string(kGidMappingLabel), "0:200000:65536"}};

class OverlayfsSettingsTest : public ::testing::Test {
 protected:
  void SetUp() override { STRATA_SUITE_NEEDS_ROOT(); }

  StatusOr<std::unique_ptr<OverlayfsSnapshotter>> Create(OverlaySettings settings) {
    return OverlayfsSnapshotter::Create(
        {.root = dir_.Join("root"), .allow_volatile = true, .overlay = std::move(settings)});
  }
  // With a chain of two layers, "base" and "top".
  void Open(OverlaySettings settings) {
    auto created = Create(std::move(settings));
    ASSERT_THAT(created, IsOk());
    snapshotter_ = *std::move(created);
    for (const auto& [name, parent] : {std::pair("base", ""), std::pair("top", "base")}) {
      ASSERT_THAT(snapshotter_->Prepare(call_, "new", parent, {}), IsOk());
      ASSERT_THAT(snapshotter_->Commit(call_, name, "new", {}), IsOk());
    }
  }
  std::vector<std::string> OptionsOf(const StatusOr<std::vector<Mount>>& mounts) {
    EXPECT_THAT(mounts, IsOk());
    return mounts.ok() && mounts->size() == 1 ? mounts->front().options
                                              : std::vector<std::string>();
  }

  CallContext call_;
  const TempDir dir_;
  std::unique_ptr<OverlayfsSnapshotter> snapshotter_;
};

TEST_F(OverlayfsSettingsTest, OnlyWritableOverlaysOfContainersAreVolatile) {
  ASSERT_NO_FATAL_FAILURE(Open({.volatile_containers = true}));
  const std::string ref(kSnapshotRefLabel);

  EXPECT_THAT(OptionsOf(snapshotter_->Prepare(call_, "k8s.io/7/container", "top", {})),
              Contains("volatile"));
  EXPECT_THAT(OptionsOf(snapshotter_->Mounts(call_, "k8s.io/7/container")), Contains("volatile"));

  for (const std::string key : {"k8s.io/8/extract-1-x sha256:1", "extract-2-x sha256:2",
                                "\x01"
                                "buildkit\x01"
                                "extract-3-x sha256:3"}) {
    EXPECT_THAT(OptionsOf(snapshotter_->Prepare(call_, key, "top", {})), Not(Contains("volatile")))
        << key;
  }
  EXPECT_THAT(OptionsOf(snapshotter_->Prepare(call_, "by-label", "top", {{ref, "sha256:4"}})),
              Not(Contains("volatile")));
  EXPECT_THAT(OptionsOf(snapshotter_->View(call_, "view", "top", {})), Not(Contains("volatile")));
  EXPECT_THAT(OptionsOf(snapshotter_->Prepare(call_, "no-parent", "", {})),
              ElementsAre("rw", "rbind"));
}

TEST_F(OverlayfsSettingsTest, VolatileContainerMountsAndKeepsWhatItWrites) {
  ASSERT_NO_FATAL_FAILURE(Open({.volatile_containers = true}));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto mounts, snapshotter_->Prepare(call_, "c", "top", {}));
  std::filesystem::create_directory(dir_.Join("target"));
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount mount,
                                ScopedMount::Mount(mounts, dir_.Join("target")));
    WriteFile(dir_.Join("target/file"), "kept");
  }
  ASSERT_THAT(snapshotter_->Commit(call_, "layer", "c", {}), IsOk());
  EXPECT_EQ(ReadFile(OwnDirectory(mounts) + "/file"), "kept");
}

TEST_F(OverlayfsSettingsTest, UpperdirLabelIsInEveryInfoAndNotStored) {
  ASSERT_NO_FATAL_FAILURE(Open({.upperdir_label = true}));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto mounts, snapshotter_->Prepare(call_, "a", "top", {}));
  const auto has_label = Contains(Pair(std::string(kUpperdirLabel), OwnDirectory(mounts)));

  STRATA_ASSERT_OK_AND_ASSIGN(SnapshotInfo info, snapshotter_->Stat(call_, "a"));
  EXPECT_THAT(info.labels, has_label);
  info.labels = {{"x", "y"}};
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotInfo updated, snapshotter_->Update(call_, info, {}));
  EXPECT_THAT(updated.labels, AllOf(has_label, Contains(Pair("x", "y"))));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, snapshotter_->List(call_, {"name==a"}));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto rows, cursor->Next());
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_THAT(rows[0].labels, has_label);
  // Filters do not see it.
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto none,
      snapshotter_->List(call_, {"labels.\"" + std::string(kUpperdirLabel) + "\""}));
  EXPECT_THAT(none->Next().value(), IsEmpty());

  snapshotter_.reset();
  STRATA_ASSERT_OK_AND_ASSIGN(snapshotter_, Create({}));
  STRATA_ASSERT_OK_AND_ASSIGN(info, snapshotter_->Stat(call_, "a"));
  EXPECT_THAT(info.labels, ElementsAre(Pair("x", "y")));
}

TEST_F(OverlayfsSettingsTest, MappingLabelsAreTheFirstOptionsOfEveryMount) {
  if (const Status status = ProbeIdmappedMounts(dir_.path()); !status.ok()) {
    GTEST_SKIP() << "kernel lacks id-mapped mounts: " << status;
  }
  ASSERT_NO_FATAL_FAILURE(Open({.remap_ids = RemapIds::kOn}));
  const std::string uids = "uidmap=0:100000:65536,65536:0:1";
  const std::string gids = "gidmap=0:200000:65536";

  EXPECT_THAT(OptionsOf(snapshotter_->Prepare(call_, "bind", "", kMapped)),
              ElementsAre(uids, gids, "rw", "rbind"));
  EXPECT_THAT(OptionsOf(snapshotter_->View(call_, "view", "base", kMapped)),
              ElementsAre(uids, gids, "ro", "rbind"));
  const std::vector<std::string> overlay =
      OptionsOf(snapshotter_->Prepare(call_, "overlay", "top", kMapped));
  ASSERT_GT(overlay.size(), 4U);
  EXPECT_EQ(overlay[0], uids);
  EXPECT_EQ(overlay[1], gids);
  EXPECT_THAT(overlay[2], HasSubstr("workdir="));
  EXPECT_THAT(OptionsOf(snapshotter_->Prepare(call_, "plain", "top", {})),
              Not(Contains(HasSubstr("map="))));
}

TEST_F(OverlayfsSettingsTest, MappingLabelThatWasSpoiledIsNotPassedOn) {
  if (const Status status = ProbeIdmappedMounts(dir_.path()); !status.ok()) {
    GTEST_SKIP() << "kernel lacks id-mapped mounts: " << status;
  }
  ASSERT_NO_FATAL_FAILURE(Open({.remap_ids = RemapIds::kOn}));
  ASSERT_THAT(snapshotter_->Prepare(call_, "a", "top", kMapped), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(SnapshotInfo info, snapshotter_->Stat(call_, "a"));
  info.labels[std::string(kUidMappingLabel)] = "0:1:1,upperdir=/etc";
  ASSERT_THAT(snapshotter_->Update(call_, info, {}), IsOk());
  EXPECT_THAT(snapshotter_->Mounts(call_, "a"), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(OverlayfsSettingsTest, MappingLabelsOnlyGiveTheOwnerUnlessTold) {
  ASSERT_NO_FATAL_FAILURE(Open({}));
  EXPECT_THAT(OptionsOf(snapshotter_->Prepare(call_, "a", "top", kMapped)),
              Not(Contains(HasSubstr("map="))));
}

TEST_F(OverlayfsSettingsTest, OptionThatTheKernelDoesNotKnowRefusesTheStart) {
  EXPECT_THAT(Create({.mount_options = {"metacopy=off", "no-such-option"}}),
              StatusIs(StatusCode::kFailedPrecondition,
                       HasSubstr("'metacopy=off,no-such-option' do not work")));
}

TEST_F(OverlayfsSettingsTest, OptionsOfTheSnapshotterAreRefused) {
  for (const char* option :
       {"upperdir=/x", "lowerdir+=/x", "ro", "a,b", "", "uidmap=0:0:1", "volatile"}) {
    EXPECT_THAT(Create({.mount_options = {option}}), StatusIs(StatusCode::kInvalidArgument))
        << option;
  }
  EXPECT_FALSE(std::filesystem::exists(dir_.Join("root")));
}

TEST_F(OverlayfsSettingsTest, SynchronousRemovalIsDoneWhenItIsAnswered) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      snapshotter_,
      OverlayfsSnapshotter::Create(
          {.root = dir_.Join("root"), .allow_volatile = true, .reaper = {.synchronous = true}}));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto mounts, snapshotter_->Prepare(call_, "a", "", {}));
  MakeDirs(OwnDirectory(mounts) + "/some/folders");
  ASSERT_THAT(snapshotter_->Remove(call_, "a"), IsOk());
  EXPECT_FALSE(std::filesystem::exists(OwnDirectory(mounts)));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.Join("root/trash")));
}

}  // namespace
}  // namespace strata::testing
