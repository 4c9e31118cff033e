// SPDX-License-Identifier: Apache-2.0
//
// What the filler does about bytes that do not hold, registries that fail, and disks that are full.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <optional>

#include "snapshotters/base/fault.h"
#include "snapshotters/lazy/filler.h"
#include "tests/snapshotters/lazy/fill_fixture.h"
#include "tests/support/lazy_layer.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::testing::AllOf;
using testing::Eventually;
using testing::FakeBlob;
using testing::GzipMember;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::ReadImage;
using testing::StatusIs;
using testing::TestLayer;
using testing::Wanted;

constexpr uint64_t kChunk = 20'000;
// Of the background (fill_schedule.cc).
constexpr std::chrono::milliseconds kShortestFirstPause{500};

class FillerFailureTest : public ::testing::Test {
 protected:
  void Start(uint32_t chunks) {
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

  [[nodiscard]] TableChunk Chunk(uint32_t index) const { return image_->chunks().chunk(index); }
  Wanted Want(uint32_t chunk) {
    return {*filler_, fill_, Chunk(chunk).image_offset, Chunk(chunk).bytes};
  }
  void ExpectFilled(uint32_t chunk) {
    EXPECT_TRUE(image_->extents().Has(chunk));
    EXPECT_EQ(ReadImage(*image_, Chunk(chunk).image_offset, Chunk(chunk).bytes),
              layer_->ChunkContent(chunk));
  }
  void ExpectNothingWritten(uint32_t chunk) {
    EXPECT_FALSE(image_->extents().Has(chunk));
    EXPECT_EQ(ReadImage(*image_, Chunk(chunk).image_offset, Chunk(chunk).bytes),
              std::string(Chunk(chunk).bytes, '\0'));
  }
  // A member of the right length that decodes to something else: the digest alone can tell.
  [[nodiscard]] std::string OtherMember(uint32_t span) const {
    std::string member = GzipMember("something else, " + std::string(kChunk, 'x'));
    const size_t bytes = layer_->Member(*image_, span).size();
    EXPECT_LT(member.size() + 20, bytes);
    while (member.size() + 40 < bytes) {
      member += GzipMember("");
    }
    // Names in a member's header make up the rest (RFC 1952, FNAME).
    std::string last = GzipMember("");
    last[3] = 8;
    last.insert(10, std::string(bytes - member.size() - last.size() - 1, 'n') + '\0');
    return member + last;
  }
  void FillTheDisk() {
    FaultPoints::Arm([this](std::string_view point) {
      return point == "filler.write" && disk_full_ ? ErrnoStatus(ENOSPC, "write") : OkStatus();
    });
    disk_full_ = true;
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

TEST_F(FillerFailureTest, FetchesOnceMoreWhatDoesNotMatchItsDigest) {
  Start(2);
  Wanted want = Want(0);
  blob_->AnswerWith(0, OtherMember(0));
  ASSERT_TRUE(blob_->WaitFor(2));
  EXPECT_FALSE(want.ready());
  ExpectNothingWritten(0);
  EXPECT_EQ(filler_->counters().mismatches, 1);
  EXPECT_EQ(blob_->requests()[1].bytes, blob_->requests()[0].bytes);
  blob_->Answer(1);
  EXPECT_THAT(want.Get().status, IsOk());
  ExpectFilled(0);
}

TEST_F(FillerFailureTest, GivesUpWhatNeverHolds) {
  Start(2);
  Wanted want = Want(0);
  blob_->AnswerWith(0, OtherMember(0));
  ASSERT_TRUE(blob_->WaitFor(2));
  blob_->AnswerWith(1, OtherMember(0));
  EXPECT_THAT(want.Get().status,
              StatusIs(StatusCode::kDataLoss,
                       AllOf(HasSubstr(layer_->digest()), HasSubstr("registry.example"),
                             HasSubstr("bytes from 'blobs.example'"),
                             HasSubstr(std::to_string(Chunk(0).image_offset)))));
  ExpectNothingWritten(0);
  EXPECT_EQ(fill_->state().failures, 1);
  EXPECT_THAT(fill_->state().last_error, StatusIs(StatusCode::kDataLoss));
  EXPECT_EQ(filler_->counters().mismatches, 2);
}

TEST_F(FillerFailureTest, ALaterWantTriesAgain) {
  Start(2);
  Wanted first = Want(0);
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(blob_->WaitFor(i + 1));
    blob_->AnswerWith(i, OtherMember(0));
  }
  EXPECT_THAT(first.Get().status, StatusIs(StatusCode::kDataLoss));
  Wanted second = Want(0);
  ASSERT_TRUE(blob_->WaitFor(3));
  blob_->Answer(2);
  EXPECT_THAT(second.Get().status, IsOk());
}

TEST_F(FillerFailureTest, FetchesOnceMoreWhatCannotBeDecoded) {
  Start(2);
  Wanted want = Want(1);
  std::string damaged = layer_->Member(*image_, 1);
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 1);
  blob_->AnswerWith(0, damaged);
  ASSERT_TRUE(blob_->WaitFor(2));
  blob_->Answer(1);
  EXPECT_THAT(want.Get().status, IsOk());
  ExpectFilled(1);
}

TEST_F(FillerFailureTest, FetchesOnceMoreWhatCameTooShort) {
  Start(2);
  Wanted want = Want(0);
  blob_->AnswerWith(0, layer_->Member(*image_, 0).substr(1));
  ASSERT_TRUE(blob_->WaitFor(2));
  blob_->AnswerWith(1, "");
  EXPECT_THAT(want.Get().status, StatusIs(StatusCode::kDataLoss));
  ExpectNothingWritten(0);
}

TEST_F(FillerFailureTest, RefusesBytesOfAnotherPlace) {
  Start(2);
  Wanted want = Want(0);
  EXPECT_FALSE(blob_->Deliver(0, 1, layer_->Member(*image_, 0)));
  blob_->Finish(0, MakeStatus(StatusCode::kCancelled, "ended by its receiver"));
  ASSERT_TRUE(blob_->WaitFor(2));
  blob_->Answer(1);
  EXPECT_THAT(want.Get().status, IsOk());
}

TEST_F(FillerFailureTest, KeepsTheWholeSpansOfAnAnswerThatBreaksOff) {
  Start(3);
  Wanted all(*filler_, fill_, Chunk(0).image_offset, 3 * kChunk);
  const std::string first = layer_->Member(*image_, 0);
  blob_->AnswerWith(0, first + layer_->Member(*image_, 1).substr(0, 100),
                    MakeStatus(StatusCode::kUnavailable, "reset"));
  ASSERT_TRUE(blob_->WaitFor(2));
  EXPECT_EQ(blob_->requests()[1].offset, image_->chunks().span(1).blob_offset);
  blob_->Serve();
  EXPECT_THAT(all.Get().status, IsOk());
}

TEST_F(FillerFailureTest, TriesAgainWhileAReaderWaits) {
  Start(2);
  Wanted want = Want(0);
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(blob_->WaitFor(i + 1));
    blob_->Fail(i, StatusCode::kUnavailable);
  }
  ASSERT_TRUE(blob_->WaitFor(4));
  EXPECT_FALSE(want.ready());
  EXPECT_EQ(fill_->state().failures, 0);
  EXPECT_THAT(fill_->state().last_error, StatusIs(StatusCode::kUnavailable));
  blob_->Answer(3);
  EXPECT_THAT(want.Get().status, IsOk());
}

TEST_F(FillerFailureTest, FailsWithTheLastErrorWhenPatienceIsOver) {
  options_.patience = std::chrono::seconds(2);  // within which it has to fail here
  Start(2);
  Wanted want = Want(0);
  blob_->Fail(0, StatusCode::kUnavailable);
  EXPECT_THAT(want.Get().status,
              StatusIs(StatusCode::kUnavailable,
                       AllOf(HasSubstr(layer_->digest()), HasSubstr("GET from"))));
}

TEST_F(FillerFailureTest, FailsWhenNothingComesWithinItsPatience) {
  options_.patience = std::chrono::milliseconds(20);
  Start(2);
  Wanted want = Want(0);
  EXPECT_THAT(want.Get().status, StatusIs(StatusCode::kDeadlineExceeded));
  // What was asked for is not lost.
  Wanted again = Want(0);
  EXPECT_EQ(blob_->count(), 1);
  blob_->Answer(0);
  EXPECT_TRUE(Eventually([this] { return image_->extents().Has(0); }));
}

TEST_F(FillerFailureTest, FailsAtOnceWithoutPatience) {
  options_.patience = std::chrono::milliseconds(0);
  Start(2);
  Wanted want = Want(0);
  blob_->Fail(0, StatusCode::kUnavailable);
  EXPECT_THAT(want.Get().status, StatusIs(StatusCode::kUnavailable));
  EXPECT_EQ(fill_->state().failures, 1);
}

class LastingFailureTest : public FillerFailureTest,
                           public ::testing::WithParamInterface<StatusCode> {};

TEST_P(LastingFailureTest, FailsAtOnce) {
  Start(2);
  Wanted want = Want(0);
  blob_->Fail(0, GetParam());
  EXPECT_THAT(want.Get().status, StatusIs(GetParam()));
  EXPECT_EQ(blob_->count(), 1);
}

INSTANTIATE_TEST_SUITE_P(Codes, LastingFailureTest,
                         ::testing::Values(StatusCode::kNotFound, StatusCode::kPermissionDenied,
                                           StatusCode::kUnauthenticated,
                                           StatusCode::kUnimplemented),
                         [](const auto& param) {
                           std::string name = absl::StatusCodeToString(param.param);
                           name.erase(std::remove(name.begin(), name.end(), '_'), name.end());
                           return name;
                         });

TEST_F(FillerFailureTest, KeepsWhatItHasWhenTheBlobIsGone) {
  Start(2);
  Wanted first = Want(0);
  blob_->Answer(0);
  EXPECT_THAT(first.Get().status, IsOk());
  Wanted second = Want(1);
  ASSERT_TRUE(blob_->WaitFor(2));
  blob_->Fail(1, StatusCode::kNotFound);
  EXPECT_THAT(second.Get().status, StatusIs(StatusCode::kNotFound));
  EXPECT_TRUE(Want(0).ready());
  ExpectFilled(0);
}

TEST_F(FillerFailureTest, BackgroundPausesAndComesBackToWhatFailed) {
  options_.request_bytes = 1'000'000;
  Start(4);
  filler_->FetchAll(fill_);
  ASSERT_EQ(blob_->count(), 1);
  const auto failed = std::chrono::steady_clock::now();
  blob_->Fail(0, StatusCode::kUnavailable);
  EXPECT_EQ(fill_->state().failures, 0);
  ASSERT_TRUE(blob_->WaitFor(2));
  EXPECT_GE(blob_->requests()[1].at - failed, kShortestFirstPause);
  EXPECT_EQ(blob_->requests()[1].offset, image_->chunks().span(0).blob_offset);
  blob_->Answer(1);
  EXPECT_TRUE(Eventually([this] { return image_->extents().complete(); }));
}

TEST_F(FillerFailureTest, ANudgeEndsPauses) {
  // A pause that ends by itself while the test is held up says nothing; not five times.
  bool ended = false;
  for (int round = 0; round < 5 && !ended; ++round) {
    TearDown();
    Start(4);
    filler_->FetchAll(fill_);
    const auto failed = std::chrono::steady_clock::now();
    blob_->Fail(0, StatusCode::kUnauthenticated);
    const size_t before = blob_->count();
    filler_->Nudge();
    ended = blob_->count() == 2 && before == 1 &&
            blob_->requests()[1].at - failed < kShortestFirstPause;
  }
  EXPECT_TRUE(ended);
}

TEST_F(FillerFailureTest, ReadersDoNotHeedPauses) {
  bool asked = false;  // for the reader, before the pause was over; in one of five rounds
  for (int round = 0; round < 5 && !asked; ++round) {
    TearDown();
    Start(4);
    filler_->FetchAll(fill_);
    blob_->Fail(0, StatusCode::kUnavailable);
    Wanted want = Want(2);
    ASSERT_TRUE(blob_->WaitFor(2));
    asked = blob_->requests()[1].fetch_class == FetchClass::kOnDemand;
    if (asked) {
      blob_->Answer(1);
      EXPECT_THAT(want.Get().status, IsOk());
      // That it worked ends the pause.
      EXPECT_TRUE(blob_->WaitFor(3));
    }
  }
  EXPECT_TRUE(asked);
}

TEST_F(FillerFailureTest, BackgroundLeavesOutWhatNeverHolds) {
  Start(3);
  filler_->FetchAll(fill_);
  const std::string rest = layer_->Member(*image_, 1) + layer_->Member(*image_, 2);
  blob_->AnswerWith(0, OtherMember(0) + rest);
  ASSERT_TRUE(blob_->WaitFor(2));
  blob_->AnswerWith(1, OtherMember(0));
  EXPECT_TRUE(Eventually(
      [this] { return fill_->state().failures == 1 && fill_->state().present_chunks == 2; }));
  EXPECT_EQ(blob_->count(), 2);
  filler_->Nudge();
  ASSERT_TRUE(blob_->WaitFor(3));
  EXPECT_EQ(blob_->count(), 3);
}

TEST_F(FillerFailureTest, ServesFromMemoryWhenTheDiskIsFull) {
  FillTheDisk();
  Start(3);
  Wanted want(*filler_, fill_, Chunk(0).image_offset + 100, 2 * kChunk);
  blob_->Answer(0);
  ASSERT_THAT(want.Get().status, IsOk());
  ASSERT_NE(want.Get().held, nullptr);
  std::string read(2 * kChunk, '\0');
  EXPECT_THAT(want.Get().held->Read(image_->image_fd(), Chunk(0).image_offset + 100,
                                    {reinterpret_cast<uint8_t*>(read.data()), read.size()}),
              IsOk());
  const std::string all =
      layer_->ChunkContent(0) + layer_->ChunkContent(1) + layer_->ChunkContent(2);
  EXPECT_EQ(read, all.substr(100, 2 * kChunk));
  EXPECT_EQ(image_->extents().present(), 0);
  EXPECT_TRUE(fill_->state().disk_full);
  EXPECT_TRUE(Eventually([this] { return calls_for_space_ >= 1; }));
}

TEST_F(FillerFailureTest, MixesWhatIsHeldWithWhatIsInTheImage) {
  Start(3);
  Wanted middle = Want(1);
  blob_->Answer(0);
  EXPECT_THAT(middle.Get().status, IsOk());
  filler_.reset();
  FillTheDisk();
  STRATA_ASSERT_OK_AND_ASSIGN(filler_, Filler::Create(options_, nullptr));
  fill_ = filler_->Add(image_, blob_, nullptr);
  Wanted all(*filler_, fill_, Chunk(0).image_offset, 3 * kChunk);
  blob_->Answer(1);
  blob_->Answer(2);
  ASSERT_THAT(all.Get().status, IsOk());
  ASSERT_NE(all.Get().held, nullptr);
  for (const uint64_t from : {uint64_t{0}, kChunk - 1, kChunk, 2 * kChunk - 5, 2 * kChunk + 7}) {
    std::string read(3 * kChunk - from, '\0');
    EXPECT_THAT(all.Get().held->Read(image_->image_fd(), Chunk(0).image_offset + from,
                                     {reinterpret_cast<uint8_t*>(read.data()), read.size()}),
                IsOk());
    EXPECT_EQ(
        read,
        (layer_->ChunkContent(0) + layer_->ChunkContent(1) + layer_->ChunkContent(2)).substr(from));
  }
}

TEST_F(FillerFailureTest, BackgroundStopsWhenTheDiskIsFullUntilAWriteSucceeds) {
  FillTheDisk();
  Start(4);
  filler_->FetchAll(fill_);
  blob_->Answer(0);
  EXPECT_TRUE(Eventually([this] { return calls_for_space_ >= 1; }));
  EXPECT_TRUE(fill_->state().disk_full);
  EXPECT_EQ(blob_->count(), 1);
  disk_full_ = false;
  blob_->Serve();
  // The first one may still meet what was on its way to the full disk.
  EXPECT_TRUE(Eventually([this] {
    Wanted want = Want(3);
    return want.Get().status.ok() && want.Get().held == nullptr;
  }));
  EXPECT_TRUE(Eventually([this] { return image_->extents().complete(); }));
  EXPECT_TRUE(Eventually([this] { return !fill_->state().disk_full; }));
}

TEST_F(FillerFailureTest, ANudgeTriesTheDiskAgain) {
  FillTheDisk();
  Start(4);
  filler_->FetchAll(fill_);
  blob_->Answer(0);
  EXPECT_TRUE(Eventually([this] { return calls_for_space_ >= 1; }));
  disk_full_ = false;
  EXPECT_TRUE(Eventually([this] {
    filler_->Nudge();
    return blob_->count() >= 2;
  }));
  // What was still in hand then is asked for on its own.
  blob_->Serve();
  EXPECT_TRUE(Eventually([this] { return image_->extents().complete(); }));
}

TEST_F(FillerFailureTest, FailsWhenTheImageCannotBeWritten) {
  FaultPoints::Arm([](std::string_view point) {
    return point == "filler.write" ? ErrnoStatus(EIO, "write") : OkStatus();
  });
  Start(2);
  Wanted want = Want(0);
  blob_->Answer(0);
  EXPECT_FALSE(want.Get().status.ok());
  EXPECT_EQ(StatusErrno(want.Get().status), EIO);
  EXPECT_FALSE(image_->extents().Has(0));
  EXPECT_FALSE(fill_->state().disk_full);
}

}  // namespace
}  // namespace strata
