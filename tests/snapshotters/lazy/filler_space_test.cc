// SPDX-License-Identifier: Apache-2.0
//
// The filler with a SpaceReserve, on a small disk that somebody else fills up. Needs root.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/space_reserve.h"
#include "tests/snapshotters/lazy/fill_fixture.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::Eventually;
using testing::FakeBlob;
using testing::IsOk;
using testing::LoopMount;
using testing::ReadImage;
using testing::StatusIs;
using testing::StatusOnceTried;
using testing::TestLayer;
using testing::Wanted;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kChunk = 60'000;
constexpr uint32_t kChunks = 300;  // 18 MB

class FillerSpaceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    STRATA_ASSERT_OK_AND_ASSIGN(
        mount_,
        LoopMount::Create({.type = "ext4", .mkfs_options = {"-q"}, .size_bytes = 64 * kMiB}));
    STRATA_ASSERT_OK_AND_ASSIGN(reserve_, SpaceReserve::Open(mount_->Join("reserve")));
    ASSERT_EQ(::mkdir(mount_->Join("layers").c_str(), 0700), 0);
    layer_ = std::make_unique<TestLayer>(std::vector<testing::TestFile>{{kChunks * kChunk, kChunk}},
                                         mount_->Join("layers"));
    image_ = layer_->Open();
    blob_ = std::make_shared<FakeBlob>(layer_->blob());
  }
  void TearDown() override {
    fill_.reset();
    filler_.reset();
    if (blob_ != nullptr) {
      blob_->CancelAll();
    }
    image_.reset();
    layer_.reset();
    reserve_.reset();
    foreign_.Reset();
  }

  void Start(std::chrono::milliseconds patience = std::chrono::minutes(5)) {
    STRATA_ASSERT_OK_AND_ASSIGN(
        filler_, Filler::Create({.patience = patience, .reserve = reserve_.get()}, nullptr));
    fill_ = filler_->Add(image_, blob_, nullptr);
    blob_->Serve();
  }
  Wanted WantOnDisk(uint32_t chunk) {
    const TableChunk found = image_->chunks().chunk(chunk);
    return Wanted::OnDisk(*filler_, fill_, found.image_offset, found.bytes);
  }
  // True once the disk has no block left.
  bool TakeABlock() {
    if (!foreign_.valid()) {
      foreign_ = UniqueFd(
          ::open(mount_->Join("foreign").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
      STRATA_CHECK(foreign_.valid());
    }
    const std::string block(16'384, 'f');
    return ::write(foreign_.get(), block.data(), block.size()) < 0 && errno == ENOSPC;
  }
  void ExpectWhole(const LayerImage& image) {
    EXPECT_TRUE(image.extents().complete());
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
      const TableChunk found = image.chunks().chunk(chunk);
      ASSERT_EQ(ReadImage(image, found.image_offset, found.bytes), layer_->ChunkContent(chunk));
    }
  }

  std::unique_ptr<LoopMount> mount_;
  std::unique_ptr<SpaceReserve> reserve_;
  std::unique_ptr<TestLayer> layer_;
  std::shared_ptr<LayerImage> image_;
  std::shared_ptr<FakeBlob> blob_;
  std::unique_ptr<Filler> filler_;
  std::shared_ptr<FillLayer> fill_;
  UniqueFd foreign_;
};

TEST_F(FillerSpaceTest, NoReaderOfTheDiskFailsWhileSomebodyFillsIt) {
  constexpr uint32_t kReaders = 8;
  ASSERT_THAT(reserve_->Reserve(image_->number(), image_->AbsentBytes()), IsOk());
  Start();
  std::atomic<bool> all_read{false};
  std::atomic<bool> full{false};
  std::thread other([&] {
    while (!all_read) {
      full = TakeABlock() || full;
    }
  });
  std::atomic<int> failures{0};
  std::vector<std::thread> readers;
  for (uint32_t number = 0; number < kReaders; ++number) {
    readers.emplace_back([&, number] {
      for (uint32_t chunk = number; chunk < kChunks; chunk += kReaders) {
        // The second half meets a full disk, whoever is fast.
        if (chunk >= kChunks / 2 && !Eventually([&] { return full.load(); })) {
          ++failures;
        }
        Wanted want = WantOnDisk(chunk);
        const bool good = want.Get().status.ok() && want.Get().held == nullptr;
        failures += good ? 0 : 1;
      }
    });
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  all_read = true;
  other.join();
  EXPECT_EQ(failures, 0);
  ExpectWhole(*image_);
}

TEST_F(FillerSpaceTest, WhatWasWrittenToAFullDiskIsThereAfterARestart) {
  ASSERT_THAT(reserve_->Reserve(image_->number(), image_->AbsentBytes()), IsOk());
  while (!TakeABlock()) {
  }
  Start();
  for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
    ASSERT_THAT(WantOnDisk(chunk).Get().status, IsOk());
  }
  fill_.reset();
  filler_.reset();
  image_.reset();
  ExpectWhole(*layer_->Open());
}

TEST_F(FillerSpaceTest, TellsTheReserveWhatWasWritten) {
  const uint64_t absent = image_->AbsentBytes();
  ASSERT_THAT(reserve_->Reserve(image_->number(), absent), IsOk());
  Start();
  ASSERT_THAT(WantOnDisk(17).Get().status, IsOk());
  EXPECT_EQ(reserve_->reserved(image_->number()), absent - kChunk);
  // It shares its first and its last block with its neighbours.
  EXPECT_LE(image_->AbsentBytes(), absent - (kChunk / 4096 - 1) * 4096);
}

TEST_F(FillerSpaceTest, LeavesAloneWhatIsReservedForOthers) {
  constexpr uint64_t kOther = 4711;
  ASSERT_THAT(reserve_->Reserve(kOther, 10 * kMiB), IsOk());
  struct stat before {};
  ASSERT_EQ(::stat(mount_->Join("reserve").c_str(), &before), 0);
  while (!TakeABlock()) {
  }
  Start(std::chrono::milliseconds(50));
  EXPECT_THAT(StatusOnceTried([this] { return WantOnDisk(17); }),
              StatusIs(StatusCode::kResourceExhausted));
  struct stat after {};
  ASSERT_EQ(::stat(mount_->Join("reserve").c_str(), &after), 0);
  EXPECT_EQ(after.st_size, before.st_size);
}

TEST_F(FillerSpaceTest, LeavesToOthersWhatTheyWereGiven) {
  constexpr uint64_t kOther = 4711;
  ASSERT_THAT(reserve_->Reserve(kOther, 10 * kMiB), IsOk());
  while (!TakeABlock()) {
  }
  ASSERT_TRUE(reserve_->Yield(4 * kMiB));
  Start(std::chrono::milliseconds(50));
  EXPECT_THAT(StatusOnceTried([this] { return WantOnDisk(17); }),
              StatusIs(StatusCode::kResourceExhausted));
  ASSERT_EQ(::ftruncate(foreign_.get(), 0), 0);
  // Within so short a patience a slow disk may need several.
  EXPECT_TRUE(Eventually([this] { return WantOnDisk(17).Get().status.ok(); }));
}

TEST_F(FillerSpaceTest, GoesOnWhenSomebodyMakesRoom) {
  while (!TakeABlock()) {
  }
  Start();
  Wanted want = WantOnDisk(17);
  EXPECT_TRUE(Eventually([this] { return fill_->state().disk_full; }));
  EXPECT_FALSE(want.ready());
  ASSERT_EQ(::ftruncate(foreign_.get(), 0), 0);
  EXPECT_THAT(want.Get().status, IsOk());
  EXPECT_TRUE(image_->extents().Has(17));
}

}  // namespace
}  // namespace strata
