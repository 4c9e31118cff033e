// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/snapshotter_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "snapshotters/os/mount_ops.h"
#include "snapshotters/os/state_root.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using strata::testing::IsOk;
using strata::testing::StatusIs;
using strata::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Status kBroken = MakeStatus(StatusCode::kFailedPrecondition, "the reason");
const Status kFull = MakeStatus(StatusCode::kResourceExhausted, "no room");

SnapshotterProbes Probes(const Status& overlayfs, const Status& fuse_overlayfs) {
  return {.overlayfs = [overlayfs](const std::string&) { return overlayfs; },
          .fuse_overlayfs = [fuse_overlayfs](const std::string&) { return fuse_overlayfs; }};
}

class SnapshotterChoiceTest : public ::testing::Test {
 protected:
  // As a snapshotter of that kind leaves it.
  void Begin(const std::string& kind) {
    STRATA_ASSERT_OK_AND_ASSIGN(
        const std::unique_ptr<StateRoot> root,
        StateRoot::Open({.path = root_, .kind = kind, .allow_volatile = true, .anchor_dir = ""}));
    ASSERT_THAT(root->MarkComplete(), IsOk());
  }

  TempDir dir_;
  const std::string root_ = dir_.Join("root");
};

TEST_F(SnapshotterChoiceTest, OverlayfsIsFirst) {
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotterChoice choice,
                              ChooseSnapshotter(root_, Probes(OkStatus(), OkStatus())));
  EXPECT_EQ(choice.kind, "overlayfs");
  EXPECT_THAT(choice.reasons, IsEmpty());
}

TEST_F(SnapshotterChoiceTest, FuseOverlayfsIsSecond) {
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotterChoice choice,
                              ChooseSnapshotter(root_, Probes(kBroken, OkStatus())));
  EXPECT_EQ(choice.kind, "fuse-overlayfs");
  EXPECT_THAT(choice.reasons, ElementsAre("auto snapshotter: overlayfs is not available for " +
                                          root_ + ", trying fuse-overlayfs: the reason"));
}

TEST_F(SnapshotterChoiceTest, NativeIsLast) {
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotterChoice choice,
                              ChooseSnapshotter(root_, Probes(kBroken, kBroken)));
  EXPECT_EQ(choice.kind, "native");
  EXPECT_THAT(choice.reasons, ElementsAre("auto snapshotter: overlayfs is not available for " +
                                              root_ + ", trying fuse-overlayfs: the reason",
                                          "auto snapshotter: fuse-overlayfs is not available for " +
                                              root_ + ", falling back to native: the reason"));
}

TEST_F(SnapshotterChoiceTest, MakesTheRootForNobodyElse) {
  const auto choice = ChooseSnapshotter(dir_.Join("a/b"), Probes(OkStatus(), OkStatus()));
  EXPECT_THAT(choice, IsOk());
  struct stat made {};
  ASSERT_EQ(::stat(dir_.Join("a/b").c_str(), &made), 0);
  EXPECT_EQ(made.st_mode & 07777U, 0700U);
}

TEST_F(SnapshotterChoiceTest, TheChosenKindCanOpenTheRoot) {
  ASSERT_THAT(ChooseSnapshotter(root_, Probes(OkStatus(), OkStatus())), IsOk());
  Begin("overlayfs");
}

// Something better works by now, but would not see the snapshots.
TEST_F(SnapshotterChoiceTest, ARootStaysWithWhatItWasBegunWith) {
  Begin("fuse-overlayfs");
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotterChoice choice,
                              ChooseSnapshotter(root_, Probes(OkStatus(), OkStatus())));
  EXPECT_EQ(choice.kind, "fuse-overlayfs");
}

TEST_F(SnapshotterChoiceTest, ANativeRootStaysNative) {
  Begin("native");
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotterChoice choice,
                              ChooseSnapshotter(root_, Probes(OkStatus(), OkStatus())));
  EXPECT_EQ(choice.kind, "native");
}

TEST_F(SnapshotterChoiceTest, ARootWhoseKindWorksNoMoreIsRefused) {
  for (const std::string kind : {"overlayfs", "fuse-overlayfs"}) {
    const TempDir dir;
    STRATA_ASSERT_OK_AND_ASSIGN(
        const std::unique_ptr<StateRoot> root,
        StateRoot::Open(
            {.path = dir.Join("root"), .kind = kind, .allow_volatile = true, .anchor_dir = ""}));
    ASSERT_THAT(root->MarkComplete(), IsOk());
    EXPECT_THAT(ChooseSnapshotter(dir.Join("root"), Probes(kBroken, kBroken)),
                StatusIs(StatusCode::kFailedPrecondition,
                         AllOf(HasSubstr("was begun with " + kind),
                               HasSubstr("does not work any more: the reason"),
                               HasSubstr("could not show the snapshots"))));
  }
}

TEST_F(SnapshotterChoiceTest, AFullDiskIsNoReasonToRefuse) {
  Begin("overlayfs");
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotterChoice choice,
                              ChooseSnapshotter(root_, Probes(kFull, OkStatus())));
  EXPECT_EQ(choice.kind, "overlayfs");
}

TEST_F(SnapshotterChoiceTest, ARootOfAKindThatHasToBeNamedIsRefused) {
  Begin("stargz");
  EXPECT_THAT(ChooseSnapshotter(root_, Probes(OkStatus(), OkStatus())),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("was begun with stargz"), HasSubstr("auto never chooses"))));
}

TEST_F(SnapshotterChoiceTest, ARelativeRootIsRefused) {
  EXPECT_THAT(ChooseSnapshotter("relative", Probes(OkStatus(), OkStatus())),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(SnapshotterChoiceMountTest, OnAnOverlayTheChoiceIsFuseOverlayfs) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "NOT TESTED: mounting needs root";
  }
  ASSERT_THAT(strata::testing::EnterPrivateMountNamespace(), IsOk());
  const TempDir dir;
  for (const char* name : {"lower", "upper", "work", "merged"}) {
    ASSERT_EQ(::mkdir(dir.Join(name).c_str(), 0755), 0);
  }
  const Mount mount{"overlay",
                    "overlay",
                    "",
                    {"lowerdir=" + dir.Join("lower"), "upperdir=" + dir.Join("upper"),
                     "workdir=" + dir.Join("work")}};
  STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount merged,
                              ScopedMount::Mount({&mount, 1}, dir.Join("merged")));
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotterChoice choice,
                              ChooseSnapshotter(dir.Join("merged/root")));
  EXPECT_EQ(choice.kind, "fuse-overlayfs");
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotterChoice plain, ChooseSnapshotter(dir.Join("root")));
  EXPECT_EQ(plain.kind, "overlayfs");
}

}  // namespace
}  // namespace strata
