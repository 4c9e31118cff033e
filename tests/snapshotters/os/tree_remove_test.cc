// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/tree_remove.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <thread>

#include "snapshotters/base/file_at.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using strata::testing::IsOk;
using strata::testing::StatusIs;
using strata::testing::TempDir;
using ::testing::HasSubstr;

constexpr uid_t kNobody = 65534;

bool Exists(const std::string& path) {
  struct stat stat {};
  return ::lstat(path.c_str(), &stat) == 0;
}

void Touch(const std::string& path) {
  ASSERT_EQ(::mknod(path.c_str(), S_IFREG | 0644, 0), 0) << path;
}

void MakeDir(const std::string& path) {
  ASSERT_EQ(::mkdir(path.c_str(), 0755), 0) << path;
}

TEST(TreeRemoveTest, RemovesAllThatIsInside) {
  const TempDir dir;
  MakeDir(dir.Join("tree"));
  MakeDir(dir.Join("tree/a"));
  MakeDir(dir.Join("tree/a/empty"));
  Touch(dir.Join("tree/a/file"));
  ASSERT_EQ(::mkfifo(dir.Join("tree/fifo").c_str(), 0644), 0);
  ASSERT_EQ(::mknod(dir.Join("tree/whiteout").c_str(), S_IFCHR, 0), 0);
  const UniqueFd parent(::open(dir.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  EXPECT_THAT(RemoveTree(parent.get(), "tree"), IsOk());
  EXPECT_FALSE(Exists(dir.Join("tree")));
}

TEST(TreeRemoveTest, IsOkWithANameThatIsNotThere) {
  const TempDir dir;
  EXPECT_THAT(RemoveTree(AT_FDCWD, dir.Join("missing")), IsOk());
}

TEST(TreeRemoveTest, RemovesASingleFile) {
  const TempDir dir;
  Touch(dir.Join("file"));
  EXPECT_THAT(RemoveTree(AT_FDCWD, dir.Join("file")), IsOk());
  EXPECT_FALSE(Exists(dir.Join("file")));
}

TEST(TreeRemoveTest, DoesNotFollowSymlinks) {
  const TempDir dir;
  MakeDir(dir.Join("outside"));
  Touch(dir.Join("outside/file"));
  MakeDir(dir.Join("tree"));
  ASSERT_EQ(::symlink(dir.Join("outside").c_str(), dir.Join("tree/link").c_str()), 0);
  ASSERT_EQ(::symlink(dir.Join("outside").c_str(), dir.Join("top").c_str()), 0);
  EXPECT_THAT(RemoveTree(AT_FDCWD, dir.Join("tree")), IsOk());
  EXPECT_THAT(RemoveTree(AT_FDCWD, dir.Join("top")), IsOk());
  EXPECT_FALSE(Exists(dir.Join("top")));
  EXPECT_TRUE(Exists(dir.Join("outside/file")));
}

TEST(TreeRemoveTest, EndsWhenTheCallerHasGone) {
  const TempDir dir;
  Touch(dir.Join("file"));
  CallContext call;
  call.Cancel();
  EXPECT_THAT(RemoveTree(call, AT_FDCWD, dir.Join("file")), StatusIs(StatusCode::kCancelled));
  EXPECT_TRUE(Exists(dir.Join("file")));
}

TEST(TreeRemoveTest, ReachesTheEndOfADeepTree) {
  const TempDir dir;
  MakeDir(dir.Join("tree"));
  UniqueFd at(::open(dir.Join("tree").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int i = 0; i < 5000; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), "d", 0755), 0);
    // Now and then two that may be left to be emptied on the way up.
    for (const char* name : {"a", "z"}) {
      if (i % 50 == 0) {
        ASSERT_EQ(::mkdirat(at.get(), name, 0755), 0);
        ASSERT_EQ(::mknodat(at.get(), (name + std::string("/f")).c_str(), S_IFREG | 0644, 0), 0);
      }
    }
    at = UniqueFd(::openat(at.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at.valid());
  }
  EXPECT_THAT(RemoveTree(AT_FDCWD, dir.Join("tree")), IsOk());
  EXPECT_FALSE(Exists(dir.Join("tree")));
}

TEST(TreeRemoveTest, RemovesADirectoryOfManyEntries) {
  const TempDir dir;
  MakeDir(dir.Join("tree"));
  const UniqueFd tree(::open(dir.Join("tree").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (int i = 0; i < 1500; ++i) {
    const std::string name = "a-name-of-some-length-" + std::to_string(i);
    ASSERT_EQ(::mknodat(tree.get(), name.c_str(), S_IFREG | 0644, 0), 0);
    ASSERT_EQ(::mkdirat(tree.get(), (name + ".d").c_str(), 0755), 0);
  }
  EXPECT_THAT(RemoveTree(AT_FDCWD, dir.Join("tree")), IsOk());
  EXPECT_FALSE(Exists(dir.Join("tree")));
}

// Root needs no permission, so as root this is done by a child that is somebody else.
TEST(TreeRemoveTest, EntersDirectoriesWithoutPermissionBits) {
  const TempDir dir;
  MakeDir(dir.Join("tree"));
  for (const char* name : {"tree/none", "tree/none/deeper", "tree/no-write", "tree/no-search"}) {
    MakeDir(dir.Join(name));
    Touch(dir.Join(name) + "/file");
  }
  if (::geteuid() == 0) {
    for (const char* name :
         {"", "tree", "tree/none", "tree/none/deeper", "tree/no-write", "tree/no-search"}) {
      ASSERT_EQ(::chown(dir.Join(name).c_str(), kNobody, kNobody), 0);
    }
  }
  ASSERT_EQ(::chmod(dir.Join("tree/none/deeper").c_str(), 0), 0);
  ASSERT_EQ(::chmod(dir.Join("tree/none").c_str(), 0), 0);
  ASSERT_EQ(::chmod(dir.Join("tree/no-write").c_str(), 0500), 0);
  ASSERT_EQ(::chmod(dir.Join("tree/no-search").c_str(), 0400), 0);

  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::geteuid() == 0 && ::setresuid(kNobody, kNobody, kNobody) != 0) {
      ::_exit(2);
    }
    ::_exit(RemoveTree(AT_FDCWD, dir.Join("tree")).ok() ? 0 : 1);
  }
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_EQ(state, 0);
  EXPECT_FALSE(Exists(dir.Join("tree")));
}

TEST(TreeRemoveTest, SharesTheWorkWithSomebodyElse) {
  const TempDir dir;
  for (int round = 0; round < 5; ++round) {
    MakeDir(dir.Join("tree"));
    for (int i = 0; i < 20; ++i) {
      const std::string name = dir.Join("tree/" + std::to_string(i));
      MakeDir(name);
      for (int j = 0; j < 20; ++j) {
        Touch(name + "/" + std::to_string(j));
      }
    }
    Status other_status;
    std::thread other([&] { other_status = RemoveTree(AT_FDCWD, dir.Join("tree")); });
    const Status status = RemoveTree(AT_FDCWD, dir.Join("tree"));
    other.join();
    ASSERT_THAT(status, IsOk());
    ASSERT_THAT(other_status, IsOk());
    ASSERT_FALSE(Exists(dir.Join("tree")));
  }
}

class TreeRemoveMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: mounting needs root";
    }
    ASSERT_THAT(strata::testing::EnterPrivateMountNamespace(), IsOk());
  }
};

TEST_F(TreeRemoveMountTest, NamesAMountPointAndRemovesTheRest) {
  const TempDir dir;
  MakeDir(dir.Join("outside"));
  Touch(dir.Join("outside/file"));
  for (const char* name : {"tree", "tree/a", "tree/a/mount", "tree/a/b", "tree/z"}) {
    MakeDir(dir.Join(name));
  }
  Touch(dir.Join("tree/z/file"));
  Touch(dir.Join("tree/a/b/file"));
  // A bind of the same device, which st_dev does not tell.
  ASSERT_EQ(::mount(dir.Join("outside").c_str(), dir.Join("tree/a/mount").c_str(), nullptr, MS_BIND,
                    nullptr),
            0);

  const Status status = RemoveTree(AT_FDCWD, dir.Join("tree"));

  EXPECT_THAT(status, StatusIs(StatusCode::kFailedPrecondition, HasSubstr("tree/a/mount'")));
  EXPECT_EQ(StatusErrno(status), EBUSY);
  EXPECT_TRUE(Exists(dir.Join("outside/file")));
  EXPECT_FALSE(Exists(dir.Join("tree/a/b")));
  EXPECT_FALSE(Exists(dir.Join("tree/z")));
}

TEST_F(TreeRemoveMountTest, WorksWhereReaddirDoesNotTellTypes) {
  const auto mount = strata::testing::LoopMount::Create(
      {.type = "ext4", .mkfs_options = {"-q", "-O", "^filetype"}});
  if (mount.status().code() == StatusCode::kNotFound) {
    GTEST_SKIP() << "NOT TESTED: " << StatusMessage(mount.status());
  }
  ASSERT_THAT(mount, IsOk());
  MakeDir((*mount)->Join("tree"));
  MakeDir((*mount)->Join("tree/a"));
  MakeDir((*mount)->Join("tree/empty"));
  Touch((*mount)->Join("tree/a/file"));
  Touch((*mount)->Join("tree/file"));
  EXPECT_THAT(RemoveTree(AT_FDCWD, (*mount)->Join("tree")), IsOk());
  EXPECT_FALSE(Exists((*mount)->Join("tree")));
}

}  // namespace
}  // namespace strata
