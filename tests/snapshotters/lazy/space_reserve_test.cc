// SPDX-License-Identifier: Apache-2.0
//
// Room that is set aside, on real file systems which somebody else fills up. Needs root.
#include "snapshotters/lazy/space_reserve.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "snapshotters/base/check.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::LoopMount;
using testing::LoopMountOptions;
using testing::StatusIs;

constexpr uint64_t kKiB = uint64_t{1} << 10;
constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kLayer = 7;
constexpr uint64_t kOther = 8;
constexpr int kTries = 64;  // of one write, which others of the test may outrun

class SpaceReserveTest : public ::testing::TestWithParam<LoopMountOptions> {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    auto mount = LoopMount::Create(GetParam());
    if (mount.status().code() == StatusCode::kNotFound) {
      GTEST_SKIP() << "NOT TESTED: " << StatusMessage(mount.status());
    }
    ASSERT_THAT(mount, IsOk());
    mount_ = *std::move(mount);
    Open();
    reserve_->Settled();
  }
  void TearDown() override {
    foreign_.Reset();
    reserve_.reset();
  }

  void Open() {
    reserve_.reset();
    STRATA_ASSERT_OK_AND_ASSIGN(reserve_, SpaceReserve::Open(mount_->Join("reserve")));
  }
  [[nodiscard]] UniqueFd OpenImage(const std::string& name) const {
    UniqueFd fd(::open(mount_->Join(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    STRATA_CHECK(fd.valid());
    return fd;
  }
  [[nodiscard]] uint64_t FileBytes() const {
    struct stat found {};
    STRATA_CHECK(::stat(mount_->Join("reserve").c_str(), &found) == 0);
    return static_cast<uint64_t>(found.st_size);
  }
  [[nodiscard]] uint64_t Available() const {
    ::sync();  // some count what is freed when it is committed
    struct statvfs found {};
    STRATA_CHECK(::statvfs(mount_->path().c_str(), &found) == 0);
    return found.f_bavail * found.f_frsize;
  }
  // Somebody else writes until the disk takes not one block more.
  void FillTheDisk() {
    foreign_ = OpenImage("foreign");
    const std::vector<char> bytes(kMiB, 'f');
    off_t at = 0;
    for (size_t piece = bytes.size(); piece >= 4096;) {
      const ssize_t written = ::pwrite(foreign_.get(), bytes.data(), piece, at);
      if (written > 0) {
        at += written;
        continue;
      }
      ASSERT_EQ(errno, ENOSPC);
      if (::fdatasync(foreign_.get()) != 0) {
        ASSERT_EQ(errno, ENOSPC);
      }
      piece /= 2;
    }
  }
  // As the filler writes. False: the disk is full, and the reserve has no more.
  bool Write(int fd, uint64_t layer, uint64_t offset, uint64_t bytes, char fill = 'l') {
    const std::vector<char> content(bytes, fill);
    uint64_t done = 0;
    int refusals = 0;  // in a row
    for (int tries = 0; done < bytes && tries < kTries;) {
      const ssize_t written =
          ::pwrite(fd, content.data() + done, bytes - done, static_cast<off_t>(offset + done));
      if (written > 0) {
        done += static_cast<uint64_t>(written);
        continue;
      }
      STRATA_CHECK(errno == ENOSPC);
      ++tries;
      ++yields_;
      // When there is no more to give, room that another one was given may be left.
      refusals = reserve_->Yield(bytes - done) ? 0 : refusals + 1;
      if (refusals > 1) {
        return false;
      }
    }
    reserve_->Used(layer, done);
    return done == bytes;
  }

  std::unique_ptr<LoopMount> mount_;
  std::unique_ptr<SpaceReserve> reserve_;
  UniqueFd foreign_;
  std::atomic<int> yields_{0};
};

TEST_P(SpaceReserveTest, TakesRoomFromTheDiskAndGivesAllBack) {
  const uint64_t before = Available();
  ASSERT_THAT(reserve_->Reserve(kLayer, 20 * kMiB), IsOk());
  EXPECT_EQ(reserve_->reserved(), 20 * kMiB);
  EXPECT_EQ(reserve_->reserved(kLayer), 20 * kMiB);
  EXPECT_LE(Available(), before - 20 * kMiB);
  reserve_->Release(kLayer);
  EXPECT_EQ(reserve_->reserved(), 0);
  EXPECT_EQ(FileBytes(), 0);
  EXPECT_GE(Available() + kMiB, before);
}

TEST_P(SpaceReserveTest, RefusesWhatTheDiskDoesNotHaveAndLeavesThingsAsTheyWere) {
  ASSERT_THAT(reserve_->Reserve(kOther, 4 * kMiB), IsOk());
  const uint64_t file = FileBytes();
  const uint64_t available = Available();
  EXPECT_THAT(reserve_->Reserve(kLayer, available), StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(reserve_->Reserve(kLayer, ~uint64_t{0}), StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(reserve_->reserved(), 4 * kMiB);
  EXPECT_EQ(reserve_->reserved(kLayer), 0);
  EXPECT_EQ(FileBytes(), file);
  EXPECT_GE(Available() + kMiB, available);
}

TEST_P(SpaceReserveTest, LeavesAMargin) {
  uint64_t all = 0;
  while (reserve_->Reserve(kLayer, kMiB).ok()) {
    all += kMiB;
  }
  EXPECT_GT(all, 20 * kMiB);
  EXPECT_GE(Available(), SpaceReserve::kLeastMargin - kMiB);
}

TEST_P(SpaceReserveTest, LetsALayerBeWrittenToAFullDisk) {
  constexpr uint64_t kBytes = 24 * kMiB;
  ASSERT_THAT(reserve_->Reserve(kLayer, kBytes), IsOk());
  const UniqueFd image = OpenImage("image");
  FillTheDisk();
  // All over the file and in steps of all sizes, as a layer fills.
  const std::vector<uint64_t> sizes = {4096, kMiB, 16'384, 300 * kKiB, 128 * kKiB, 65'536};
  uint64_t written = 0;
  for (size_t i = 0; written < kBytes; ++i) {
    const uint64_t bytes = std::min(sizes[i % sizes.size()], kBytes - written);
    ASSERT_TRUE(Write(image.get(), kLayer, 2 * (kBytes - written), bytes)) << written;
    written += bytes;
  }
  EXPECT_EQ(reserve_->reserved(), 0);
  EXPECT_EQ(::fsync(image.get()), 0);
  EXPECT_GT(yields_, 0);
}

TEST_P(SpaceReserveTest, LetsManyThreadsWriteToAFullDisk) {
  constexpr uint64_t kBytes = 24 * kMiB;
  constexpr uint64_t kThreads = 8;
  constexpr uint64_t kWrite = 128 * kKiB;
  ASSERT_THAT(reserve_->Reserve(kLayer, kBytes), IsOk());
  const UniqueFd image = OpenImage("image");
  FillTheDisk();
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (uint64_t number = 0; number < kThreads; ++number) {
    threads.emplace_back([&, number] {
      for (uint64_t at = number * kWrite; at < kBytes; at += kThreads * kWrite) {
        failures += Write(image.get(), kLayer, at, kWrite) ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(reserve_->reserved(kLayer), 0);
  EXPECT_EQ(::fsync(image.get()), 0);
}

TEST_P(SpaceReserveTest, HasNothingToGiveWhenNothingIsReserved) {
  EXPECT_FALSE(reserve_->Yield(4096));
  ASSERT_THAT(reserve_->Reserve(kLayer, kMiB), IsOk());
  EXPECT_TRUE(reserve_->Yield(10 * kMiB));
  EXPECT_FALSE(reserve_->Yield(4096));
}

TEST_P(SpaceReserveTest, KeepsTheRoomOfALayerWhileAnotherOneFills) {
  ASSERT_THAT(reserve_->Reserve(kLayer, 10 * kMiB), IsOk());
  ASSERT_THAT(reserve_->Reserve(kOther, 10 * kMiB), IsOk());
  const UniqueFd image = OpenImage("image");
  const UniqueFd other = OpenImage("other");
  FillTheDisk();
  for (uint64_t at = 0; at < 10 * kMiB; at += kMiB) {
    ASSERT_TRUE(Write(image.get(), kLayer, at, kMiB));
  }
  reserve_->Release(kLayer);
  EXPECT_EQ(reserve_->reserved(), 10 * kMiB);
  for (uint64_t at = 0; at < 10 * kMiB; at += kMiB) {
    ASSERT_TRUE(Write(other.get(), kOther, at, kMiB));
  }
}

TEST_P(SpaceReserveTest, BecomesSmallerAsALayerFillsInLargeSteps) {
  ASSERT_THAT(reserve_->Reserve(kLayer, 40 * kMiB), IsOk());
  const uint64_t file = FileBytes();
  reserve_->Used(kLayer, SpaceReserve::kTrimBytes / 2);
  EXPECT_EQ(FileBytes(), file);
  reserve_->Used(kLayer, SpaceReserve::kTrimBytes / 2);
  EXPECT_LE(FileBytes(), file - SpaceReserve::kTrimBytes);
  EXPECT_GE(FileBytes(), 40 * kMiB - SpaceReserve::kTrimBytes);
}

TEST_P(SpaceReserveTest, TakesBackWhatItGaveAwayOnceThereIsRoom) {
  ASSERT_THAT(reserve_->Reserve(kLayer, 20 * kMiB), IsOk());
  const uint64_t file = FileBytes();
  FillTheDisk();
  ASSERT_TRUE(reserve_->Yield(10 * kMiB));
  reserve_->Restore();  // the margin is not its own to take
  EXPECT_LE(FileBytes(), file - 8 * kMiB);
  ASSERT_EQ(::ftruncate(foreign_.get(), 0), 0);
  ::sync();
  reserve_->Restore();
  EXPECT_EQ(FileBytes(), file);
}

TEST_P(SpaceReserveTest, OfAProcessThatDiedStaysUntilThingsHaveSettled) {
  ASSERT_THAT(reserve_->Reserve(kLayer, 20 * kMiB), IsOk());
  ASSERT_THAT(reserve_->Reserve(kOther, 20 * kMiB), IsOk());
  const uint64_t file = FileBytes();
  const UniqueFd image = OpenImage("image");
  FillTheDisk();
  Open();
  EXPECT_EQ(reserve_->reserved(), 0);
  EXPECT_EQ(FileBytes(), file);
  // The disk is full, but this is there already.
  ASSERT_THAT(reserve_->Reserve(kOther, 20 * kMiB), IsOk());
  EXPECT_EQ(FileBytes(), file);
  reserve_->Used(kOther, 0);
  reserve_->Restore();
  EXPECT_EQ(FileBytes(), file);
  reserve_->Settled();
  EXPECT_LT(FileBytes(), 21 * kMiB);
  EXPECT_TRUE(Write(image.get(), kOther, 0, 20 * kMiB));
}

TEST_P(SpaceReserveTest, TakesAFileWithHolesForNone) {
  reserve_.reset();
  ASSERT_EQ(::truncate(mount_->Join("reserve").c_str(), static_cast<off_t>(20 * kMiB)), 0);
  Open();
  const uint64_t before = Available();
  ASSERT_THAT(reserve_->Reserve(kLayer, 20 * kMiB), IsOk());
  EXPECT_LE(Available(), before - 20 * kMiB);
}

INSTANTIATE_TEST_SUITE_P(
    FileSystems, SpaceReserveTest,
    ::testing::Values(
        LoopMountOptions{.type = "ext4", .mkfs_options = {"-q"}, .size_bytes = 96 * int64_t{kMiB}},
        LoopMountOptions{.type = "xfs", .mkfs_options = {"-q"}, .size_bytes = 320 * int64_t{kMiB}},
        LoopMountOptions{
            .type = "btrfs", .mkfs_options = {"-q"}, .size_bytes = 256 * int64_t{kMiB}}),
    [](const auto& param) { return param.param.type; });

TEST(SpaceReserveOnAnyDiskTest, SaysWhenTheFileSystemCannotAllocate) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  // Without extents, as ext3 has it.
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto mount,
      LoopMount::Create({.type = "ext4",
                         .mkfs_options = {"-q", "-O", "^extent,^64bit,^metadata_csum"},
                         .size_bytes = 32 * int64_t{kMiB}}));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto reserve, SpaceReserve::Open(mount->Join("reserve")));
  EXPECT_THAT(reserve->Reserve(kLayer, kMiB),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("fallocate")));
  EXPECT_EQ(reserve->reserved(), 0);
}

TEST(SpaceReserveOnAnyDiskTest, RefusesWhatIsNoFile) {
  EXPECT_THAT(SpaceReserve::Open("/tmp"), ::testing::Not(IsOk()));
  EXPECT_THAT(SpaceReserve::Open("/dev/null"), StatusIs(StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace strata
