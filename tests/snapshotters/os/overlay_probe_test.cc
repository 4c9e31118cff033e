// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/overlay_probe.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "snapshotters/base/file_at.h"
#include "snapshotters/os/mount_ops.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using strata::testing::IsOk;
using strata::testing::LoopMount;
using strata::testing::LoopMountOptions;
using strata::testing::StatusIs;
using strata::testing::TempDir;
using ::testing::HasSubstr;

class OverlayProbeMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: mounting needs root";
    }
    ASSERT_THAT(strata::testing::EnterPrivateMountNamespace(), IsOk());
  }
};

void ExpectEmpty(const std::string& directory) {
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    EXPECT_EQ(entry.path().filename(), "lost+found");
  }
}

// Exit code of `body` in a child that is root of a user namespace of its own.
int InUserNamespace(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    const auto write = [](const char* path, std::string_view text) {
      const UniqueFd fd(::open(path, O_WRONLY | O_CLOEXEC));
      return WriteAll(fd.get(), text, path).ok();
    };
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0 || !write("/proc/self/uid_map", "0 0 1") ||
        !write("/proc/self/setgroups", "deny") || !write("/proc/self/gid_map", "0 0 1")) {
      ::_exit(100);
    }
    ::_exit(body());
  }
  int state = 0;
  return ::waitpid(child, &state, 0) == child && WIFEXITED(state) ? WEXITSTATUS(state) : 101;
}

struct FileSystemCase {
  const char* name;
  LoopMountOptions options;
  bool has_types;
};

class OverlayProbeFileSystemMountTest : public OverlayProbeMountTest,
                                        public ::testing::WithParamInterface<FileSystemCase> {};

TEST_P(OverlayProbeFileSystemMountTest, TellsWhetherReaddirGivesTypes) {
  const auto mount = LoopMount::Create(GetParam().options);
  if (mount.status().code() == StatusCode::kNotFound) {
    GTEST_SKIP() << "NOT TESTED: " << StatusMessage(mount.status());
  }
  ASSERT_THAT(mount, IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const bool has_types, SupportsDType((*mount)->path()));
  EXPECT_EQ(has_types, GetParam().has_types);
  ExpectEmpty((*mount)->path());
}

TEST_P(OverlayProbeFileSystemMountTest, MountsAnOverlay) {
  const auto mount = LoopMount::Create(GetParam().options);
  if (mount.status().code() == StatusCode::kNotFound) {
    GTEST_SKIP() << "NOT TESTED: " << StatusMessage(mount.status());
  }
  ASSERT_THAT(mount, IsOk());
  EXPECT_THAT(ProbeOverlay((*mount)->path()), IsOk());
  ExpectEmpty((*mount)->path());
}

INSTANTIATE_TEST_SUITE_P(
    FileSystems, OverlayProbeFileSystemMountTest,
    ::testing::Values(FileSystemCase{"Ext4", {.type = "ext4", .mkfs_options = {"-q"}}, true},
                      FileSystemCase{"Ext4WithoutTypes",
                                     {.type = "ext4", .mkfs_options = {"-q", "-O", "^filetype"}},
                                     false},
                      FileSystemCase{"Xfs", {.type = "xfs", .mkfs_options = {"-q"}}, true},
                      FileSystemCase{"Btrfs", {.type = "btrfs", .mkfs_options = {"-q"}}, true}),
    [](const auto& test) { return test.param.name; });

TEST_F(OverlayProbeMountTest, GivesTheReasonWhereNoOverlayCanBe) {
  const TempDir dir;
  for (const char* name : {"lower", "upper", "work", "merged"}) {
    ASSERT_EQ(::mkdir(dir.Join(name).c_str(), 0755), 0);
  }
  // An overlay cannot be the upper layer of another one.
  const Mount mount{"overlay",
                    "overlay",
                    "",
                    {"lowerdir=" + dir.Join("lower"), "upperdir=" + dir.Join("upper"),
                     "workdir=" + dir.Join("work")}};
  STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount merged,
                              ScopedMount::Mount({&mount, 1}, dir.Join("merged")));
  EXPECT_THAT(ProbeOverlay(dir.Join("merged")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("mount overlay on '")));
  ExpectEmpty(dir.Join("merged"));
}

TEST_F(OverlayProbeMountTest, FailsWhereNothingCanBeMade) {
  EXPECT_THAT(SupportsDType("/proc/self"), ::testing::Not(IsOk()));
  EXPECT_THAT(ProbeOverlay("/proc/self/missing"), StatusIs(StatusCode::kNotFound));
}

TEST_F(OverlayProbeMountTest, NeedsNoUserXattrOutsideOfUserNamespaces) {
  if (RunningInUserNamespace()) {
    GTEST_SKIP() << "NOT TESTED: this is a user namespace";
  }
  const TempDir dir;
  STRATA_ASSERT_OK_AND_ASSIGN(const bool needs, NeedsUserXattr(dir.path()));
  EXPECT_FALSE(needs);
}

TEST_F(OverlayProbeMountTest, UsesUserXattrInAUserNamespace) {
  // A file system of its own: temporary directories may be on tmpfs.
  STRATA_ASSERT_OK_AND_ASSIGN(const auto disk,
                              LoopMount::Create({.type = "ext4", .mkfs_options = {"-q"}}));
  const int result = InUserNamespace([&] {
    const StatusOr<bool> needs = NeedsUserXattr(disk->path());
    if (!RunningInUserNamespace() || !needs.ok() || !*needs) {
      return 1;
    }
    return ProbeOverlay(disk->path()).ok() ? 0 : 2;
  });
  if (result == 100) {
    GTEST_SKIP() << "NOT TESTED: no user namespaces here";
  }
  EXPECT_EQ(result, 0);
  ExpectEmpty(disk->path());
}

TEST_F(OverlayProbeMountTest, NeverUsesUserXattrOnTmpfs) {
  const TempDir dir;
  ASSERT_EQ(::mount("tmpfs", dir.path().c_str(), "tmpfs", 0, nullptr), 0);
  const int result = InUserNamespace([&] {
    const StatusOr<bool> needs = NeedsUserXattr(dir.path());
    return needs.ok() && !*needs ? 0 : 1;
  });
  ASSERT_EQ(::umount2(dir.path().c_str(), 0), 0);
  if (result == 100) {
    GTEST_SKIP() << "NOT TESTED: no user namespaces here";
  }
  EXPECT_EQ(result, 0);
}

TEST_F(OverlayProbeMountTest, SeesTheParametersOfTheModule) {
  EXPECT_EQ(OverlayHasIndexOption(),
            std::filesystem::exists("/sys/module/overlay/parameters/index"));
}

}  // namespace
}  // namespace strata
