// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_directory.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <set>
#include <thread>

#include "snapshotters/os/directory_entries.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using testing::IsOk;
using testing::StatusIs;

class LayerDirectoryTest : public ::testing::Test {
 protected:
  std::unique_ptr<LayerDirectory> Open() {
    auto opened = LayerDirectory::Open(path_);
    EXPECT_THAT(opened, IsOk());
    return *std::move(opened);
  }
  void Make(const std::string& name) const {
    ASSERT_EQ(::mkdir((path_ + "/" + name).c_str(), 0700), 0);
    std::ofstream(path_ + "/" + name + "/source") << "x";
  }

  testing::TempDir root_;
  const std::string path_ = root_.Join("layers");
};

TEST_F(LayerDirectoryTest, FindsLayersInOrder) {
  Open();
  for (const char* name : {"10", "9", "bad-3", "new-11", "trash-4-1-1", "007", "other"}) {
    Make(name);
  }
  EXPECT_EQ(Open()->found(), (std::vector<uint64_t>{9, 10}));
}

TEST_F(LayerDirectoryTest, CountsOnBehindAllItSees) {
  Open();
  Make("3");
  Make("trash-8-1-1");
  Make("bad-5");
  EXPECT_EQ(*Open()->TakeNumber(), 9U);
}

TEST_F(LayerDirectoryTest, PassesNoNumberOverWhenItEndsOrderly) {
  EXPECT_EQ(*Open()->TakeNumber(), 1U);
  EXPECT_EQ(*Open()->TakeNumber(), 2U);
}

TEST_F(LayerDirectoryTest, AFileOfNumbersThatCannotBeReadCostsSomeNumbers) {
  Open();
  Make("3");
  std::ofstream(path_ + "/next") << "rubbish";
  EXPECT_GE(*Open()->TakeNumber(), 64U);
}

TEST_F(LayerDirectoryTest, GivesEachNumberOnce) {
  const auto directory = Open();
  Mutex mutex;
  std::multiset<uint64_t> taken;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 100; ++j) {
        const uint64_t number = directory->TakeNumber().value_or(0);
        const MutexLock lock(mutex);
        taken.insert(number);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(std::set<uint64_t>(taken.begin(), taken.end()).size(), 400U);
  EXPECT_EQ(*taken.rbegin(), 400U);
}

TEST_F(LayerDirectoryTest, RemembersTheLastUse) {
  const auto directory = Open();
  Make("1");
  ASSERT_THAT(directory->NoteUse(1, 1'234'567'890'123'456'789), IsOk());
  EXPECT_EQ(*directory->LastUse(1), 1'234'567'890'123'456'789);
  EXPECT_THAT(directory->LastUse(2), StatusIs(StatusCode::kNotFound));
}

TEST_F(LayerDirectoryTest, DiscardedLayersAreTrashUntilItIsEmptied) {
  const auto directory = Open();
  Make("1");
  ASSERT_THAT(directory->Discard(1), IsOk());
  EXPECT_THAT(directory->Discard(1), StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(DirectoryEntries(directory->fd())->size(), 1U);
  ASSERT_THAT(directory->EmptyTrash(), IsOk());
  EXPECT_TRUE(DirectoryEntries(directory->fd())->empty());
}

}  // namespace
}  // namespace strata
