// SPDX-License-Identifier: Apache-2.0
//
// Readers that can only read the image itself, and a disk that is full.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <optional>

#include "snapshotters/base/fault.h"
#include "snapshotters/lazy/fill_schedule.h"
#include "snapshotters/lazy/filler.h"
#include "tests/snapshotters/lazy/fill_fixture.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::testing::AllOf;
using testing::Eventually;
using testing::FakeBlob;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::ReadImage;
using testing::StatusIs;
using testing::StatusOnceTried;
using testing::TestLayer;
using testing::Wanted;

constexpr uint64_t kChunk = 20'000;

class FillerOnDiskTest : public ::testing::Test {
 protected:
  void Start(uint32_t chunks) {
    FaultPoints::Arm([this](std::string_view point) {
      return point == "filler.write" && disk_full_ ? ErrnoStatus(ENOSPC, "write") : OkStatus();
    });
    layer_.emplace(std::vector<testing::TestFile>{{chunks * kChunk, kChunk}});
    image_ = layer_->Open();
    blob_ = std::make_shared<FakeBlob>(layer_->blob());
    STRATA_ASSERT_OK_AND_ASSIGN(filler_, Filler::Create(options_, [this] { ++calls_for_space_; }));
    fill_ = filler_->Add(image_, blob_, nullptr);
  }
  void TearDown() override {
    filler_.reset();
    if (blob_ != nullptr) {
      blob_->CancelAll();
    }
    FaultPoints::Arm({});
  }

  [[nodiscard]] uint64_t At(uint32_t chunk) const {
    return image_->chunks().chunk(chunk).image_offset;
  }
  Wanted WantOnDisk(uint32_t chunk, uint32_t count = 1) {
    return Wanted::OnDisk(*filler_, fill_, At(chunk), count * kChunk);
  }
  void ExpectFilled(uint32_t chunk) {
    EXPECT_TRUE(image_->extents().Has(chunk));
    EXPECT_EQ(ReadImage(*image_, At(chunk), kChunk), layer_->ChunkContent(chunk));
  }

  Filler::Options options_{.read_ahead_bytes = 0};
  std::optional<TestLayer> layer_;
  std::shared_ptr<LayerImage> image_;
  std::shared_ptr<FakeBlob> blob_;
  std::atomic<int> calls_for_space_{0};
  std::atomic<bool> disk_full_{false};
  std::unique_ptr<Filler> filler_;
  std::shared_ptr<FillLayer> fill_;
};

TEST_F(FillerOnDiskTest, FindsItsBytesInTheImage) {
  Start(2);
  Wanted want = WantOnDisk(1);
  blob_->Answer(0);
  EXPECT_THAT(want.Get().status, IsOk());
  EXPECT_EQ(want.Get().held, nullptr);
  ExpectFilled(1);
}

TEST_F(FillerOnDiskTest, CallsBackAtOnceWhenAllIsPresent) {
  Start(2);
  Wanted first = WantOnDisk(0);
  blob_->Answer(0);
  EXPECT_THAT(first.Get().status, IsOk());
  EXPECT_TRUE(WantOnDisk(0).ready());
  EXPECT_EQ(filler_->counters().wants, 2);
  EXPECT_EQ(filler_->counters().wants_absent, 1);
}

TEST_F(FillerOnDiskTest, WaitsForRoomAndAsksForIt) {
  disk_full_ = true;
  Start(2);
  Wanted want = WantOnDisk(0);
  blob_->Answer(0);
  EXPECT_TRUE(Eventually([this] { return calls_for_space_ >= 1; }));
  ASSERT_TRUE(blob_->WaitFor(2));
  EXPECT_FALSE(want.ready());
  EXPECT_TRUE(fill_->state().disk_full);
  EXPECT_EQ(fill_->state().failures, 0);
  disk_full_ = false;
  blob_->Answer(1);
  EXPECT_THAT(want.Get().status, IsOk());
  EXPECT_EQ(want.Get().held, nullptr);
  ExpectFilled(0);
  EXPECT_FALSE(fill_->state().disk_full);
}

TEST_F(FillerOnDiskTest, FailsWhenPatienceIsOver) {
  disk_full_ = true;
  options_.patience = std::chrono::milliseconds(50);
  Start(2);
  blob_->Serve();
  EXPECT_THAT(StatusOnceTried([this] { return WantOnDisk(0); }),
              StatusIs(StatusCode::kResourceExhausted,
                       AllOf(HasSubstr(layer_->digest()), HasSubstr("write"))));
  EXPECT_FALSE(image_->extents().Has(0));
}

TEST_F(FillerOnDiskTest, FailsAtOnceWithoutPatience) {
  disk_full_ = true;
  options_.patience = std::chrono::milliseconds(0);
  Start(2);
  Wanted want = WantOnDisk(0);
  blob_->Answer(0);
  EXPECT_THAT(want.Get().status, StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(fill_->state().failures, 1);
}

TEST_F(FillerOnDiskTest, LetsThoseGoWhoTakeBytesFromMemory) {
  disk_full_ = true;
  Start(2);
  Wanted on_disk = WantOnDisk(0);
  Wanted any(*filler_, fill_, At(0), kChunk);
  blob_->Answer(0);
  ASSERT_THAT(any.Get().status, IsOk());
  EXPECT_NE(any.Get().held, nullptr);
  EXPECT_FALSE(on_disk.ready());
  disk_full_ = false;
  ASSERT_TRUE(blob_->WaitFor(2));
  blob_->Answer(1);
  EXPECT_THAT(on_disk.Get().status, IsOk());
}

TEST_F(FillerOnDiskTest, CountsASpanOnceForThoseWhoWaitForSeveral) {
  disk_full_ = true;
  Start(3);
  Wanted middle = WantOnDisk(1);
  Wanted any(*filler_, fill_, At(0), 3 * kChunk);
  ASSERT_EQ(blob_->count(), 3);
  blob_->Answer(0);
  // The middle one is written later; that must not stand for one of the others.
  ASSERT_TRUE(blob_->WaitFor(4));
  disk_full_ = false;
  blob_->Answer(3);
  EXPECT_THAT(middle.Get().status, IsOk());
  EXPECT_FALSE(any.ready());
  blob_->Answer(1);
  EXPECT_TRUE(Eventually([this] { return image_->extents().present() == 2; }));
  EXPECT_FALSE(any.ready());
  blob_->Answer(2);
  ASSERT_THAT(any.Get().status, IsOk());
  std::string read(3 * kChunk, '\0');
  ASSERT_NE(any.Get().held, nullptr);
  EXPECT_THAT(any.Get().held->Read(image_->image_fd(), At(0),
                                   {reinterpret_cast<uint8_t*>(read.data()), read.size()}),
              IsOk());
  EXPECT_EQ(read, layer_->ChunkContent(0) + layer_->ChunkContent(1) + layer_->ChunkContent(2));
}

TEST_F(FillerOnDiskTest, ANudgeTriesTheDiskAgain) {
  disk_full_ = true;
  Start(2);
  Wanted want = WantOnDisk(0);
  blob_->Answer(0);
  EXPECT_TRUE(Eventually([this] { return calls_for_space_ >= 1; }));
  disk_full_ = false;
  EXPECT_TRUE(Eventually([this] {
    filler_->Nudge();
    return blob_->count() == 2;
  }));
  blob_->Answer(1);
  EXPECT_THAT(want.Get().status, IsOk());
}

TEST_F(FillerOnDiskTest, EndsWithTheFiller) {
  disk_full_ = true;
  Start(2);
  Wanted want = WantOnDisk(0);
  blob_->Answer(0);
  EXPECT_TRUE(Eventually([this] { return fill_->state().disk_full; }));
  filler_.reset();
  EXPECT_THAT(want.Get().status, StatusIs(StatusCode::kCancelled));
}

// The same seen from the schedule, which is told the time.
class FillScheduleTest : public ::testing::Test {
 protected:
  FillScheduleTest()
      : layer_({{2 * kChunk, kChunk}}),
        fill_(std::make_shared<LayerFill>(layer_.Open(), nullptr, nullptr, 0)) {
    schedule_.Know(fill_);
  }

  std::shared_ptr<FillWaiter> Want(bool on_disk) {
    auto waiter = std::make_shared<FillWaiter>();
    waiter->range = {.offset = 0, .bytes = 1, .on_disk = on_disk};
    schedule_.Want(fill_, {0}, FillClass::kDemand, waiter, now_);
    return waiter;
  }
  std::optional<FillRequest> Next() { return schedule_.Next(now_, 0); }
  FillWaiters FindTheDiskFull(const FillRequest& request) {
    schedule_.EndRequest(request.fill_class);
    return schedule_.NotWritten(request.fills.at(0), ErrnoStatus(ENOSPC, "write"), true, now_);
  }

  const TestLayer layer_;
  const std::shared_ptr<LayerFill> fill_;
  FillTime now_{std::chrono::hours(1)};
  FillSchedule schedule_{{}, 1};
};

TEST_F(FillScheduleTest, RestsWhileOnlyReadersOfTheDiskWait) {
  (void)Want(/*on_disk=*/true);
  EXPECT_TRUE(FindTheDiskFull(*Next()).empty());
  EXPECT_FALSE(Next().has_value());
  const FillTime due = schedule_.NextTime();
  EXPECT_GT(due, now_);
  EXPECT_LE(due, now_ + std::chrono::seconds(1));
  now_ = due;
  EXPECT_TRUE(schedule_.Expire(now_).empty());
  EXPECT_TRUE(Next().has_value());
}

TEST_F(FillScheduleTest, ANewReaderOfMemoryEndsTheRest) {
  (void)Want(/*on_disk=*/true);
  EXPECT_TRUE(FindTheDiskFull(*Next()).empty());
  (void)Want(/*on_disk=*/true);
  EXPECT_FALSE(Next().has_value());
  const auto any = Want(/*on_disk=*/false);
  const auto request = Next();
  ASSERT_TRUE(request.has_value());
  const FillWaiters released = FindTheDiskFull(*request);
  ASSERT_EQ(released.size(), 1);
  EXPECT_EQ(released[0], any);
  EXPECT_THAT(any->result, IsOk());
  EXPECT_FALSE(Next().has_value());
}

TEST_F(FillScheduleTest, LeavesASpanThatNobodyNeedsOnDisk) {
  (void)Want(/*on_disk=*/false);
  EXPECT_EQ(FindTheDiskFull(*Next()).size(), 1);
  EXPECT_EQ(schedule_.NextTime(), FillTime::max());
}

TEST_F(FillScheduleTest, RestsLongerEachTimeUpToAFewSeconds) {
  (void)Want(/*on_disk=*/true);
  std::chrono::nanoseconds longest{0};
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(FindTheDiskFull(*Next()).empty());
    longest = std::max(longest, schedule_.NextTime() - now_);
    now_ = schedule_.NextTime();
    EXPECT_TRUE(schedule_.Expire(now_).empty());
  }
  EXPECT_GT(longest, std::chrono::seconds(1));
  EXPECT_LE(longest, std::chrono::seconds(10));
}

TEST_F(FillScheduleTest, TheBackgroundComesBackToAFullDisk) {
  schedule_.Walk(fill_, FillClass::kBackground, 2);
  const FillRequest request = *Next();
  request.fills.at(0)->write_began = now_;
  EXPECT_TRUE(FindTheDiskFull(request).empty());
  EXPECT_FALSE(Next().has_value());
  const FillTime due = schedule_.NextTime();
  EXPECT_GE(due, now_ + std::chrono::seconds(10));
  EXPECT_LE(due, now_ + std::chrono::minutes(1));
  now_ = due;
  EXPECT_TRUE(schedule_.Expire(now_).empty());
  EXPECT_TRUE(Next().has_value());
}

TEST_F(FillScheduleTest, AFullDiskThatHasHadRoomSinceStopsNothing) {
  schedule_.Walk(fill_, FillClass::kBackground, 2);
  const FillRequest request = *Next();
  request.fills.at(0)->write_began = now_;
  now_ += std::chrono::seconds(1);
  EXPECT_TRUE(schedule_.Filled(*request.fills.at(1), now_).empty());
  EXPECT_TRUE(FindTheDiskFull(request).empty());
  EXPECT_TRUE(Next().has_value());
}

}  // namespace
}  // namespace strata
