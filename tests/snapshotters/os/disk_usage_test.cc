// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/disk_usage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "snapshotters/base/file_at.h"
#include "snapshotters/os/tree_remove.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using strata::testing::IsOk;
using strata::testing::StatusIs;
using strata::testing::TempDir;

UniqueFd OpenDir(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

void WriteFile(const std::string& path, size_t bytes) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  ASSERT_TRUE(fd.valid()) << path;
  ASSERT_THAT(WriteAll(fd.get(), std::string(bytes, 'x'), path), IsOk());
  ASSERT_EQ(::fsync(fd.get()), 0);  // file systems that delay allocation show blocks only then
}

int64_t NumberFrom(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "re"), &::pclose);
  long long number = -1;
  EXPECT_EQ(std::fscanf(pipe.get(), "%lld", &number), 1) << command;
  return number;
}

Usage Du(const std::string& path) {
  return {NumberFrom("du -s --block-size=1 " + path), NumberFrom("du -s --inodes " + path)};
}

StatusOr<Usage> UsageOf(const std::string& path) {
  const UniqueFd fd = OpenDir(path);
  return DiskUsage(CallContext(), fd.get());
}

TEST(DiskUsageTest, AgreesWithDuOnAllKindsOfEntries) {
  const TempDir dir;
  ASSERT_EQ(::mkdir(dir.Join("a").c_str(), 0755), 0);
  ASSERT_EQ(::mkdir(dir.Join("a/b").c_str(), 0700), 0);
  WriteFile(dir.Join("a/data"), 123'456);
  WriteFile(dir.Join("empty"), 0);
  WriteFile(dir.Join("sparse"), 10);
  ASSERT_EQ(::truncate(dir.Join("sparse").c_str(), off_t{1} << 30), 0);
  ASSERT_EQ(::link(dir.Join("a/data").c_str(), dir.Join("a/b/again").c_str()), 0);
  ASSERT_EQ(::link(dir.Join("a/data").c_str(), dir.Join("third").c_str()), 0);
  ASSERT_EQ(::symlink("/", dir.Join("root").c_str()), 0);
  ASSERT_EQ(::symlink(std::string(3000, 'l').c_str(), dir.Join("long").c_str()), 0);
  ASSERT_EQ(::mkfifo(dir.Join("fifo").c_str(), 0644), 0);
  ASSERT_EQ(::mknod(dir.Join("whiteout").c_str(), S_IFCHR, 0), 0);

  STRATA_ASSERT_OK_AND_ASSIGN(const Usage usage, UsageOf(dir.path()));

  EXPECT_EQ(usage.inodes, 10);
  EXPECT_EQ(usage, Du(dir.path()));
}

TEST(DiskUsageTest, CountsAnEmptyDirectoryItself) {
  const TempDir dir;
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage usage, UsageOf(dir.path()));
  EXPECT_EQ(usage.inodes, 1);
  EXPECT_EQ(usage, Du(dir.path()));
}

TEST(DiskUsageTest, GivesTheSameAnswerTwiceThroughOneDescriptor) {
  const TempDir dir;
  WriteFile(dir.Join("file"), 5000);
  const UniqueFd fd = OpenDir(dir.path());
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage first, DiskUsage(CallContext(), fd.get()));
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage second, DiskUsage(CallContext(), fd.get()));
  EXPECT_EQ(first.inodes, 2);
  EXPECT_EQ(first, second);
}

TEST(DiskUsageTest, TakesADescriptorThatCannotBeRead) {
  const TempDir dir;
  ASSERT_EQ(::mkdir(dir.Join("a").c_str(), 0755), 0);
  WriteFile(dir.Join("a/file"), 5000);
  const UniqueFd fd(::open(dir.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage usage, DiskUsage(CallContext(), fd.get()));
  EXPECT_EQ(usage, Du(dir.path()));
}

TEST(DiskUsageTest, WalksATreeOfManyEntries) {
  const TempDir dir;
  constexpr int kDirectories = 20;
  constexpr int kFiles = 100;
  for (int i = 0; i < kDirectories; ++i) {
    const std::string name = dir.Join("directory-" + std::to_string(i));
    ASSERT_EQ(::mkdir(name.c_str(), 0755), 0);
    for (int j = 0; j < kFiles; ++j) {
      const std::string file = name + "/a-name-of-some-length-" + std::to_string(j);
      ASSERT_EQ(::mknod(file.c_str(), S_IFREG | 0644, 0), 0);
    }
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage usage, UsageOf(dir.path()));
  EXPECT_EQ(usage.inodes, 1 + kDirectories * (1 + kFiles));
}

// Large enough for several threads, with names of the same inodes in what different ones walk.
TEST(DiskUsageTest, AgreesWithDuOnALargeTree) {
  const TempDir dir;
  constexpr int kDirectories = 30;
  constexpr int kFiles = 200;
  const std::string first = dir.Join("one-of-many-names");
  WriteFile(first, 9000);
  for (int i = 0; i < kDirectories; ++i) {
    const std::string outer = dir.Join(std::to_string(i % 3));
    const std::string inner = outer + "/" + std::to_string(i);
    (void)::mkdir(outer.c_str(), 0755);
    ASSERT_EQ(::mkdir(inner.c_str(), 0755), 0);
    for (int j = 0; j < kFiles; ++j) {
      const std::string file = inner + "/" + std::to_string(j);
      ASSERT_EQ(::mknod(file.c_str(), S_IFREG | 0644, 0), 0);
      ASSERT_EQ(::link(first.c_str(), (file + "-link").c_str()), 0);
    }
  }
  for (int i = 0; i < 5; ++i) {
    STRATA_ASSERT_OK_AND_ASSIGN(const Usage usage, UsageOf(dir.path()));
    ASSERT_EQ(usage, Du(dir.path()));
  }
}

TEST(DiskUsageTest, AgreesWithDuOnALargeDirectory) {
  const TempDir dir;
  constexpr int kFiles = 10'000;
  for (int i = 0; i < kFiles; ++i) {
    const std::string name = dir.Join("a-name-of-some-length-" + std::to_string(i));
    if (i % 100 == 0) {
      ASSERT_EQ(::mkdir(name.c_str(), 0755), 0);
      WriteFile(name + "/file", 100);
    } else {
      ASSERT_EQ(::mknod(name.c_str(), S_IFREG | 0644, 0), 0);
    }
  }
  for (int i = 0; i < 5; ++i) {
    STRATA_ASSERT_OK_AND_ASSIGN(const Usage usage, UsageOf(dir.path()));
    ASSERT_EQ(usage, Du(dir.path()));
  }
}

TEST(DiskUsageTest, ReachesTheEndOfADeepTree) {
  const TempDir dir;
  constexpr int kLevels = 5000;
  UniqueFd at = OpenDir(dir.path());
  const UniqueFd top = OpenDir(dir.path());
  int made = 1;
  for (int i = 0; i < kLevels; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), "d", 0755), 0);
    ++made;
    // Now and then two that may be left to be entered on the way up.
    for (const char* name : {"a", "z"}) {
      if (i % 50 == 0) {
        ASSERT_EQ(::mkdirat(at.get(), name, 0755), 0);
        ++made;
      }
    }
    at = UniqueFd(::openat(at.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at.valid());
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage usage, DiskUsage(CallContext(), top.get()));
  EXPECT_EQ(usage.inodes, made);
}

TEST(DiskUsageTest, LeavesOutWhatVanishesMeanwhile) {
  const TempDir dir;
  ASSERT_EQ(::mkdir(dir.Join("stays").c_str(), 0755), 0);
  std::atomic<bool> stop = false;
  std::thread other([&] {
    while (!stop) {
      for (int i = 0; i < 50; ++i) {
        const std::string name = dir.Join("gone-" + std::to_string(i));
        (void)::mkdir(name.c_str(), 0755);
        (void)::mknod((name + "/file").c_str(), S_IFREG | 0644, 0);
      }
      for (int i = 0; i < 50; ++i) {
        (void)RemoveTree(AT_FDCWD, dir.Join("gone-" + std::to_string(i)));
      }
    }
  });
  Status status;
  for (int i = 0; i < 300 && status.ok(); ++i) {
    status = UsageOf(dir.path()).status();
  }
  stop = true;
  other.join();
  EXPECT_THAT(status, IsOk());
}

TEST(DiskUsageTest, EndsWhenTheCallerHasGone) {
  const TempDir dir;
  CallContext call;
  call.Cancel();
  const UniqueFd fd = OpenDir(dir.path());
  EXPECT_THAT(DiskUsage(call, fd.get()), StatusIs(StatusCode::kCancelled));
}

TEST(DiskUsageTest, DoesNotTouchAccessTimes) {
  const TempDir dir;
  ASSERT_EQ(::mkdir(dir.Join("a").c_str(), 0755), 0);
  const timespec old[2] = {{1000, 5}, {2000, 7}};
  ASSERT_EQ(::utimensat(AT_FDCWD, dir.Join("a").c_str(), old, 0), 0);
  ASSERT_THAT(UsageOf(dir.path()), IsOk());
  struct stat stat {};
  ASSERT_EQ(::stat(dir.Join("a").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_atim.tv_sec, 1000);
}

class DiskUsageMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: mounting needs root";
    }
    ASSERT_THAT(strata::testing::EnterPrivateMountNamespace(), IsOk());
  }
};

TEST_F(DiskUsageMountTest, CountsNeitherMountPointNorWhatIsBelow) {
  const TempDir dir;
  ASSERT_EQ(::mkdir(dir.Join("tree").c_str(), 0755), 0);
  WriteFile(dir.Join("tree/file"), 5000);
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage before, UsageOf(dir.Join("tree")));
  for (const char* name : {"tree/tmpfs", "tree/bind", "elsewhere"}) {
    ASSERT_EQ(::mkdir(dir.Join(name).c_str(), 0755), 0);
  }
  WriteFile(dir.Join("elsewhere/file"), 7000);
  ASSERT_EQ(::mount("tmpfs", dir.Join("tree/tmpfs").c_str(), "tmpfs", 0, nullptr), 0);
  ASSERT_EQ(::mount(dir.Join("elsewhere").c_str(), dir.Join("tree/bind").c_str(), nullptr, MS_BIND,
                    nullptr),
            0);
  EXPECT_THAT(UsageOf(dir.Join("tree")), IsOk());
  EXPECT_EQ(*UsageOf(dir.Join("tree")), before);
}

}  // namespace
}  // namespace strata
