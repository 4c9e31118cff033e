// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/reaper.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "snapshotters/base/file_at.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using std::filesystem::exists;

constexpr std::chrono::seconds kLimit{30};

class ReaperTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"snapshots", "trash"}) {
      ASSERT_EQ(::mkdir(dir_.Join(name).c_str(), 0700), 0);
    }
    snapshots_ = UniqueFd(::open(dir_.Join("snapshots").c_str(), O_RDONLY | O_CLOEXEC));
    trash_ = UniqueFd(::open(dir_.Join("trash").c_str(), O_RDONLY | O_CLOEXEC));
  }
  std::string MakeTree(const std::string& name) {
    const std::string path = dir_.Join(name);
    std::filesystem::create_directories(path + "/fs/a/b");
    std::ofstream(path + "/fs/a/file") << "x";
    return path;
  }

  testing::TempDir dir_;
  UniqueFd snapshots_;
  UniqueFd trash_;
};

TEST_F(ReaperTest, RemovesWhatIsDiscarded) {
  const std::string seven = MakeTree("snapshots/7");
  const std::string eight = MakeTree("snapshots/8");
  Reaper reaper(snapshots_.get(), trash_.get(), {.rest = std::chrono::milliseconds(0)});
  reaper.Discard(7);
  reaper.Discard(99);  // nothing there: no failure
  ASSERT_TRUE(reaper.WaitIdle(kLimit));
  EXPECT_FALSE(exists(seven));
  EXPECT_TRUE(exists(eight));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.Join("trash")));
  EXPECT_EQ(reaper.counts().failed, 0U);
}

TEST_F(ReaperTest, SynchronousDiscardReturnsWhenItIsGone) {
  const std::string path = MakeTree("snapshots/7");
  Reaper reaper(snapshots_.get(), trash_.get(),
                {.rest = std::chrono::hours(1), .synchronous = true});
  reaper.Discard(7);
  EXPECT_FALSE(exists(path));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.Join("trash")));
}

TEST_F(ReaperTest, RestsUntilKicked) {
  const std::string path = MakeTree("snapshots/7");
  Reaper reaper(snapshots_.get(), trash_.get(), {.rest = std::chrono::hours(1)});
  reaper.Discard(7);
  EXPECT_FALSE(reaper.WaitIdle(std::chrono::milliseconds(20)));
  EXPECT_TRUE(exists(path));
  reaper.Kick();
  ASSERT_TRUE(reaper.WaitIdle(kLimit));
  EXPECT_FALSE(exists(path));
}

TEST_F(ReaperTest, EmptiesTheTrashOfItsPredecessor) {
  const std::string path = MakeTree("trash/3");
  Reaper reaper(snapshots_.get(), trash_.get(), {});
  ASSERT_TRUE(reaper.WaitIdle(kLimit));
  EXPECT_FALSE(exists(path));
}

// However large the tree: whether it is all there or half of it, the next one takes the rest.
TEST_F(ReaperTest, ATreeThatWasCutShortIsRemovedByTheNext) {
  const std::string path = MakeTree("snapshots/7");
  for (int i = 0; i < 3000; ++i) {
    std::ofstream(path + "/fs/a/b/" + std::to_string(i)) << "";
  }
  {
    Reaper reaper(snapshots_.get(), trash_.get(), {.rest = std::chrono::hours(1)});
    reaper.Discard(7);
    reaper.Kick();
    const auto deadline = std::chrono::steady_clock::now() + kLimit;
    while (exists(path) && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::yield();
    }
  }
  EXPECT_FALSE(exists(path));
  Reaper next(snapshots_.get(), trash_.get(), {});
  ASSERT_TRUE(next.WaitIdle(kLimit));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.Join("trash")));
  EXPECT_EQ(next.counts().failed, 0U);
}

TEST_F(ReaperTest, EndsAtOnceWithWorkLeft) {
  const std::string path = MakeTree("snapshots/7");
  {
    Reaper reaper(snapshots_.get(), trash_.get(), {.rest = std::chrono::hours(1)});
    reaper.Discard(7);
  }
  EXPECT_TRUE(exists(path)) << "the next start's sweep finds it";
}

}  // namespace
}  // namespace strata
