// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/replace_mount.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "snapshotters/base/file_at.h"
#include "snapshotters/os/mount_ops.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using strata::testing::IsOk;
using strata::testing::TempDir;

class ReplaceMountMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: mounting needs root";
    }
    ASSERT_THAT(strata::testing::EnterPrivateMountNamespace(), IsOk());
    ASSERT_EQ(::mkdir(target_.c_str(), 0755), 0);
  }
  void TearDown() override {
    while (::umount2(target_.c_str(), MNT_DETACH) == 0) {
    }
  }

  [[nodiscard]] std::string SourceOfTarget() const {
    struct stat found {};
    return ::stat((target_ + "/old").c_str(), &found) == 0 ? "old" : "new";
  }
  // How many mounts lie on the target.
  int CountMounts() {
    int count = 0;
    while (::umount2(target_.c_str(), MNT_DETACH) == 0) {
      ++count;
    }
    return count;
  }
  void MountOld() {
    const Mount old{"tmpfs", "old", "", {}};
    ASSERT_THAT(MountAll({&old, 1}, target_), IsOk());
    ASSERT_EQ(::mkdir((target_ + "/old").c_str(), 0755), 0);
  }

  const TempDir directory_;
  const std::string target_ = directory_.path() + "/target";
  const Mount new_{"tmpfs", "new", "", {"ro"}};
};

TEST_F(ReplaceMountMountTest, MountsWhereNothingIs) {
  ASSERT_THAT(ReplaceMount(new_, target_), IsOk());
  EXPECT_EQ(::mkdir((target_ + "/a").c_str(), 0755), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(CountMounts(), 1);
}

TEST_F(ReplaceMountMountTest, OldMountIsGoneForWhoLooksAndThereForWhoHasIt) {
  MountOld();
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd open, OpenFile(target_, O_RDONLY | O_DIRECTORY));
  ASSERT_THAT(ReplaceMount(new_, target_), IsOk());
  EXPECT_EQ(SourceOfTarget(), "new");
  EXPECT_EQ(::faccessat(open.get(), "old", F_OK, 0), 0);
  // Linux 6.5 leaves nothing under the new one.
  EXPECT_EQ(CountMounts(), 1);
}

TEST_F(ReplaceMountMountTest, FailureChangesNothing) {
  MountOld();
  EXPECT_FALSE(ReplaceMount({"erofs", "/proc/version", "", {"ro"}}, target_).ok());
  EXPECT_FALSE(ReplaceMount({"no-such-fs", "x", "", {}}, target_).ok());
  EXPECT_EQ(SourceOfTarget(), "old");
  EXPECT_EQ(CountMounts(), 1);
}

}  // namespace
}  // namespace strata
