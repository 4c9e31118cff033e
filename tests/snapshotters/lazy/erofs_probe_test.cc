// SPDX-License-Identifier: Apache-2.0
//
// Where the kernel cannot ask us, and that it is said why. *DeniedTest runs under deny_syscalls.
#include "snapshotters/lazy/erofs_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "snapshotters/os/mount_ops.h"
#include "tests/snapshotters/lazy/fuse_fixture.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using ::testing::AllOf;
using testing::Exists;
using ::testing::HasSubstr;
using testing::NamesIn;
using testing::StatusIs;
using testing::TempDir;

class ErofsProbeMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: mounting needs root";
    }
  }

  std::string Mounted(const std::string& type, const std::vector<std::string>& options) {
    const std::string target = dir_.Join(type);
    EXPECT_EQ(::mkdir(target.c_str(), 0700), 0);
    const Mount mount{type, type, "", options};
    EXPECT_TRUE(MountAll({&mount, 1}, target).ok());
    return target;
  }

  TempDir dir_;
};

TEST_F(ErofsProbeMountTest, LeavesNothingBehind) {
  const Status status = ProbeErofs(dir_.Join("probe"));
  if (!status.ok()) {
    GTEST_SKIP() << "kernel lacks what EROFS with events takes: " << status.ToString();
  }
  EXPECT_FALSE(Exists(dir_.Join("probe")));
}

TEST_F(ErofsProbeMountTest, MountsACompleteImageFromItsFileAndLeavesNothing) {
  const Status status = ProbeErofsFile(dir_.Join("probe"));
  EXPECT_FALSE(Exists(dir_.Join("probe")));
  if (!status.ok()) {
    GTEST_SKIP() << "kernel lacks EROFS mounts of files: " << status.ToString();
  }
}

TEST_F(ErofsProbeMountTest, RemovesWhatACrashHasLeft) {
  ASSERT_EQ(::mkdir(dir_.Join("probe").c_str(), 0700), 0);
  ASSERT_EQ(::mkdir(dir_.Join("probe/image").c_str(), 0700), 0);
  (void)ProbeErofs(dir_.Join("probe"));  // says what the kernel can
  EXPECT_FALSE(Exists(dir_.Join("probe")));
}

TEST_F(ErofsProbeMountTest, NamesTheFileSystemThatCannot) {
  const std::string tmpfs = Mounted("tmpfs", {"size=4m"});
  EXPECT_THAT(ProbeErofs(tmpfs + "/probe"),
              StatusIs(StatusCode::kUnimplemented,
                       AllOf(HasSubstr("ask for events of a file"), HasSubstr("file system"))));
  EXPECT_EQ(NamesIn(tmpfs).size(), 2U);  // . and ..
}

TEST_F(ErofsProbeMountTest, SaysThatAnOverlayCannot) {
  for (const char* name : {"lower", "upper", "work"}) {
    ASSERT_EQ(::mkdir(dir_.Join(name).c_str(), 0700), 0);
  }
  const std::string overlay =
      Mounted("overlay", {"lowerdir=" + dir_.Join("lower"), "upperdir=" + dir_.Join("upper"),
                          "workdir=" + dir_.Join("work")});
  EXPECT_THAT(ProbeErofs(overlay + "/probe"),
              StatusIs(StatusCode::kUnimplemented, HasSubstr("ask for events of a file")));
  EXPECT_EQ(NamesIn(overlay).size(), 2U);
}

TEST(ErofsProbeDeniedTest, NamesTheCallThatIsDenied) {
  const TempDir dir;
  EXPECT_THAT(
      ProbeErofs(dir.Join("probe")),
      StatusIs(StatusCode::kUnimplemented, AllOf(HasSubstr("ask for events: make a fanotify group"),
                                                 HasSubstr("Function not implemented"))));
  EXPECT_FALSE(Exists(dir.Join("probe")));
}

}  // namespace
}  // namespace strata
