// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/spare_directories.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <set>
#include <thread>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/unique_fd.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using testing::IsOk;
using testing::StatusIs;

class SpareDirectoriesTest : public ::testing::Test {
 protected:
  SpareDirectoriesTest() : fd_(::open(dir_.path().c_str(), O_RDONLY | O_CLOEXEC)) {}

  SpareDirectories Make() {
    return SpareDirectories(
        fd_.get(), [this]() -> StatusOr<uint64_t> { return next_++; },
        {{.mode = 0700, .folders = {{"fs", 0755}, {"work", 0711}}}, {.mode = 0755, .folders = {}}});
  }
  mode_t ModeOf(const std::string& name) {
    struct stat found {};
    return ::stat(dir_.Join(name).c_str(), &found) == 0 ? found.st_mode & 07777 : 0;
  }

  testing::TempDir dir_;
  UniqueFd fd_;
  std::atomic<uint64_t> next_{1};
};

TEST_F(SpareDirectoriesTest, ModesDoNotDependOnTheUmask) {
  const mode_t old = ::umask(0777);
  {
    SpareDirectories spares = Make();
    STRATA_ASSERT_OK_AND_ASSIGN(const uint64_t id, spares.Take(0));
    EXPECT_EQ(ModeOf(std::to_string(id)), 0700U);
    EXPECT_EQ(ModeOf(std::to_string(id) + "/fs"), 0755U);
    EXPECT_EQ(ModeOf(std::to_string(id) + "/work"), 0711U);
    STRATA_ASSERT_OK_AND_ASSIGN(const uint64_t other, spares.Take(1));
    EXPECT_EQ(ModeOf(std::to_string(other)), 0755U);
    EXPECT_TRUE(std::filesystem::is_empty(dir_.Join(std::to_string(other))));
  }
  (void)::umask(old);
}

TEST_F(SpareDirectoriesTest, EveryCallerGetsOneOfItsOwnAndTheRestGoesAtTheEnd) {
  std::set<uint64_t> taken;
  {
    SpareDirectories spares = Make();
    std::vector<std::vector<uint64_t>> mine(8);
    std::vector<std::thread> threads;
    for (auto& ids : mine) {
      threads.emplace_back([&] {
        for (int i = 0; i < 60; ++i) {
          const auto id = spares.Take(0);
          ASSERT_THAT(id, IsOk());
          ids.push_back(*id);
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    for (const auto& ids : mine) {
      taken.insert(ids.begin(), ids.end());
    }
  }
  EXPECT_EQ(taken.size(), 480U);
  size_t left = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
    EXPECT_TRUE(taken.contains(std::stoull(entry.path().filename().string())));
    ++left;
  }
  EXPECT_EQ(left, taken.size());
}

TEST_F(SpareDirectoriesTest, GivesUpAmongNumbersInUseAndGoesOnLater) {
  constexpr uint64_t kInUse = 9000;
  ASSERT_EQ(::mkdirat(fd_.get(), "1", 0700), 0);
  // As if each of the first numbers had a directory already.
  SpareDirectories spares(fd_.get(),
                          [this]() -> StatusOr<uint64_t> {
                            const uint64_t id = next_++;
                            return id <= kInUse ? 1 : id;
                          },
                          {{.mode = 0700, .folders = {}}});
  EXPECT_THAT(spares.Take(0), StatusIs(StatusCode::kUnavailable));
  EXPECT_LE(next_, kInUse);
  STRATA_ASSERT_OK_AND_ASSIGN(const uint64_t id, spares.Take(0));
  EXPECT_GT(id, kInUse);
}

TEST_F(SpareDirectoriesTest, AFailureReachesTheCallerAndLeavesNothing) {
  FaultPoints::Arm([](std::string_view point) {
    return point == "spare.sync" ? ErrnoStatus(ENOSPC, "injected") : OkStatus();
  });
  {
    SpareDirectories spares = Make();
    EXPECT_THAT(spares.Take(0), StatusIs(StatusCode::kResourceExhausted));
    FaultPoints::Arm({});
    EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
    EXPECT_THAT(spares.Take(0), IsOk());
  }
}

}  // namespace
}  // namespace strata
