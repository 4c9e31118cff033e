// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/mount_stack.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using testing::IsOk;

class MountStackMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: mounting needs root";
    }
    ASSERT_EQ(::mkdir(target_.c_str(), 0700), 0);
  }
  void Cover(const std::string& name) {
    ASSERT_EQ(::mount("tmpfs", target_.c_str(), "tmpfs", 0, nullptr), 0);
    std::ofstream(target_ + "/" + name) << name;
  }
  [[nodiscard]] bool Has(const std::string& name) const {
    return ::access((target_ + "/" + name).c_str(), F_OK) == 0;
  }

  testing::TempDir dir_;
  const std::string target_ = dir_.Join("t");
};

TEST_F(MountStackMountTest, KeepsTheTopmostAlone) {
  Cover("a");
  Cover("b");
  Cover("c");
  EXPECT_THAT(KeepTopmost(target_), IsOk());
  EXPECT_TRUE(Has("c"));
  ASSERT_EQ(::umount2(target_.c_str(), 0), 0);
  EXPECT_EQ(::umount2(target_.c_str(), 0), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(MountStackMountTest, KeepsTheFlagsOfTheMount) {
  Cover("a");
  ASSERT_EQ(::mount("tmpfs", target_.c_str(), "tmpfs", MS_RDONLY, nullptr), 0);
  EXPECT_THAT(KeepTopmost(target_), IsOk());
  EXPECT_NE(::mkdir((target_ + "/d").c_str(), 0700), 0);
  EXPECT_EQ(errno, EROFS);
}

TEST_F(MountStackMountTest, LeavesAMissingTargetAlone) {
  EXPECT_FALSE(KeepTopmost(dir_.Join("missing")).ok());
}

}  // namespace
}  // namespace strata
