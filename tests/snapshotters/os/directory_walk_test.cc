// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/directory_walk.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <vector>

#include "snapshotters/os/directory_entries.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using strata::testing::TempDir;
using ::testing::Optional;
using ::testing::UnorderedElementsAre;

constexpr size_t kDeep = DirectoryWalk::kHeldLevels + 20;

// A chain of directories d/d/d... that has been entered down to its end.
class DirectoryWalkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(walk_.Enter("", UniqueFd(OpenDirectoryQuietly(AT_FDCWD, dir_.path().c_str()))), 0);
    while (walk_.depth() < kDeep) {
      ASSERT_EQ(::mkdirat(walk_.fd(), "d", 0755), 0);
      ASSERT_EQ(walk_.Enter("d", UniqueFd(OpenDirectoryQuietly(walk_.fd(), "d"))), 0);
    }
  }

  [[nodiscard]] std::string Path(size_t depth) const {
    std::string path = dir_.path();
    for (size_t i = 1; i < depth; ++i) {
      path += "/d";
    }
    return path;
  }

  const TempDir dir_;
  DirectoryWalk walk_{OpenDirectoryQuietly};
};

ino_t InodeOf(int fd) {
  struct stat stat {};
  EXPECT_EQ(::fstat(fd, &stat), 0);
  return stat.st_ino;
}

ino_t InodeOf(const std::string& path) {
  struct stat stat {};
  EXPECT_EQ(::stat(path.c_str(), &stat), 0) << path;
  return stat.st_ino;
}

size_t OpenDescriptors() {
  const UniqueFd self(::open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return DirectoryEntries(self.get())->size();
}

TEST_F(DirectoryWalkTest, ComesBackTheWayItWent) {
  for (size_t depth = kDeep - 1; depth > 0; --depth) {
    const DirectoryWalk::Left left = walk_.Leave();
    EXPECT_EQ(left.name, "d");
    EXPECT_EQ(left.error, 0);
    EXPECT_EQ(InodeOf(left.fd.get()), InodeOf(Path(depth + 1)));
    ASSERT_EQ(walk_.depth(), depth);
    EXPECT_EQ(InodeOf(walk_.fd()), InodeOf(Path(depth)));
  }
  EXPECT_EQ(walk_.Leave().error, 0);
  EXPECT_EQ(walk_.depth(), 0U);
}

TEST_F(DirectoryWalkTest, HoldsFewDescriptors) {
  const size_t before = OpenDescriptors();
  while (walk_.depth() > 0) {
    (void)walk_.Leave();  // what it holds goes
  }
  EXPECT_EQ(before - OpenDescriptors(), DirectoryWalk::kHeldLevels + 1);
}

TEST_F(DirectoryWalkTest, GoesBackToCertainGroundWhenADirectoryWasMoved) {
  const TempDir elsewhere;
  std::filesystem::rename(Path(kDeep), elsewhere.Join("moved"));
  const DirectoryWalk::Left left = walk_.Leave();
  EXPECT_EQ(left.error, ESTALE);
  EXPECT_EQ(walk_.depth(), DirectoryWalk::kHeldLevels);
  EXPECT_EQ(InodeOf(walk_.fd()), InodeOf(Path(DirectoryWalk::kHeldLevels)));
}

TEST_F(DirectoryWalkTest, HasNotEnteredWhatItCannotTellApart) {
  EXPECT_EQ(walk_.Enter("x", UniqueFd()), EBADF);
  EXPECT_EQ(walk_.depth(), kDeep);
  EXPECT_EQ(InodeOf(walk_.fd()), InodeOf(Path(kDeep)));
}

TEST_F(DirectoryWalkTest, KeepsWhatIsPostponedWithItsLevel) {
  walk_.Postpone("deepest");
  (void)walk_.Leave();
  EXPECT_EQ(walk_.TakePostponed(), std::nullopt);
  walk_.Postpone("one");
  walk_.Postpone("two");
  ASSERT_EQ(walk_.Enter("d", UniqueFd(OpenDirectoryQuietly(walk_.fd(), "d"))), 0);
  EXPECT_EQ(walk_.TakePostponed(), std::nullopt);
  (void)walk_.Leave();
  EXPECT_THAT(walk_.TakePostponed(), Optional(std::string("two")));
  EXPECT_THAT(walk_.TakePostponed(), Optional(std::string("one")));
  EXPECT_EQ(walk_.TakePostponed(), std::nullopt);
}

TEST_F(DirectoryWalkTest, GivesAwayWhatIsNearestToTheTop) {
  DirectoryWalk walk(OpenDirectoryQuietly);
  ASSERT_EQ(walk.Enter("", UniqueFd(OpenDirectoryQuietly(AT_FDCWD, dir_.path().c_str()))), 0);
  EXPECT_FALSE(walk.TakeNearTop().has_value());
  walk.Postpone("x");
  ASSERT_EQ(walk.Enter("d", UniqueFd(OpenDirectoryQuietly(walk.fd(), "d"))), 0);
  walk.Postpone("y");
  walk.Postpone("z");
  EXPECT_EQ(walk.postponed(), 3U);
  const auto first = walk.TakeNearTop();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->path, "x");
  EXPECT_EQ(InodeOf(first->at), InodeOf(Path(1)));
  const auto second = walk.TakeNearTop();
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->name, "z");
  EXPECT_EQ(second->path, "d/z");
  EXPECT_EQ(InodeOf(second->at), InodeOf(Path(2)));
  EXPECT_EQ(walk.postponed(), 1U);
  (void)walk.Leave();
  EXPECT_EQ(walk.postponed(), 0U);
}

// Those between have no descriptor by which somebody else could open it.
TEST_F(DirectoryWalkTest, GivesAwayNothingOfLevelsThatAreNotOpen) {
  (void)walk_.Leave();
  walk_.Postpone("deep");
  ASSERT_EQ(walk_.Enter("d", UniqueFd(OpenDirectoryQuietly(walk_.fd(), "d"))), 0);
  EXPECT_FALSE(walk_.TakeNearTop().has_value());
  EXPECT_EQ(walk_.postponed(), 1U);
}

TEST_F(DirectoryWalkTest, TellsPathsFromTheTop) {
  while (walk_.depth() > 3) {
    (void)walk_.Leave();
  }
  EXPECT_EQ(walk_.PathOf("name"), "d/d/name");
  EXPECT_EQ(walk_.PathOf(""), "d/d");
  (void)walk_.Leave();
  (void)walk_.Leave();
  EXPECT_EQ(walk_.PathOf("name"), "name");
  EXPECT_EQ(walk_.PathOf(""), ".");
}

TEST(EntryReaderTest, GivesEachNameOnce) {
  const TempDir dir;
  std::vector<std::string> made;
  for (int i = 0; i < 2000; ++i) {  // several reads
    made.push_back("a-name-of-some-length-" + std::to_string(i));
    ASSERT_EQ(::mknod(dir.Join(made.back()).c_str(), S_IFREG | 0644, 0), 0);
  }
  const UniqueFd fd(OpenDirectoryQuietly(AT_FDCWD, dir.path().c_str()));
  EntryReader entries(fd.get());
  std::vector<std::string> found;
  while (const dirent64* entry = entries.Next()) {
    found.emplace_back(entry->d_name);
  }
  EXPECT_EQ(entries.error(), 0);
  EXPECT_EQ(entries.Next(), nullptr);
  EXPECT_THAT(found, ::testing::UnorderedElementsAreArray(made));
}

TEST(EntryReaderTest, SaysWhatWentWrong) {
  const UniqueFd file(::open("/proc/self/stat", O_RDONLY | O_CLOEXEC));
  EntryReader entries(file.get());
  EXPECT_EQ(entries.Next(), nullptr);
  EXPECT_EQ(entries.error(), ENOTDIR);
}

TEST(DirectoryEntriesTest, LeavesThePositionOfTheDescriptor) {
  const TempDir dir;
  ASSERT_EQ(::mkdir(dir.Join("a").c_str(), 0755), 0);
  ASSERT_EQ(::symlink("nowhere", dir.Join("b").c_str()), 0);
  const UniqueFd fd(OpenDirectoryQuietly(AT_FDCWD, dir.path().c_str()));
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(DirectoryEntries(fd.get()).value(), UnorderedElementsAre("a", "b"));
  }
}

}  // namespace
}  // namespace strata
