// SPDX-License-Identifier: Apache-2.0
//
// What the filler asks for, in which order, and whom it serves, while everything works.
#include "snapshotters/lazy/filler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <optional>

#include "tests/snapshotters/lazy/fill_fixture.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::Eventually;
using testing::FakeBlob;
using testing::IsOk;
using testing::ReadImage;
using testing::StatusIs;
using testing::TestFile;
using testing::TestLayer;
using testing::Wanted;

constexpr uint64_t kChunk = 20'000;

class FillerTest : public ::testing::Test {
 protected:
  // One file of `chunks` chunks.
  void Start(uint32_t chunks) { StartFiles({{chunks * kChunk, kChunk}}); }
  void StartFiles(const std::vector<TestFile>& files) {
    layer_.emplace(files);
    image_ = layer_->Open();
    blob_ = std::make_shared<FakeBlob>(layer_->blob());
    STRATA_ASSERT_OK_AND_ASSIGN(filler_, Filler::Create(options_, nullptr));
    fill_ = filler_->Add(image_, blob_, [this](FillLayer&) { ++completions_; });
  }
  void TearDown() override {
    filler_.reset();
    if (blob_ != nullptr) {
      blob_->CancelAll();
    }
  }

  [[nodiscard]] TableChunk Chunk(uint32_t index) const { return image_->chunks().chunk(index); }
  Wanted Want(uint32_t first, uint32_t count = 1) {
    const uint64_t begin = Chunk(first).image_offset;
    const TableChunk last = Chunk(first + count - 1);
    return {*filler_, fill_, begin, last.image_offset + last.bytes - begin};
  }
  void ExpectRange(size_t request, uint32_t first_span, uint32_t last_span) {
    const auto requests = blob_->requests();
    ASSERT_LT(request, requests.size());
    const TableSpan first = image_->chunks().span(first_span);
    const TableSpan last = image_->chunks().span(last_span);
    EXPECT_EQ(requests[request].offset, first.blob_offset);
    EXPECT_EQ(requests[request].bytes, last.blob_offset + last.blob_bytes - first.blob_offset);
  }
  void ExpectFilled(uint32_t chunk) {
    EXPECT_TRUE(image_->extents().Has(chunk));
    EXPECT_EQ(ReadImage(*image_, Chunk(chunk).image_offset, Chunk(chunk).bytes),
              layer_->ChunkContent(chunk));
  }
  // No byte was asked for twice.
  void ExpectNoOverlap() {
    auto requests = blob_->requests();
    std::sort(requests.begin(), requests.end(),
              [](const auto& left, const auto& right) { return left.offset < right.offset; });
    for (size_t i = 1; i < requests.size(); ++i) {
      EXPECT_LE(requests[i - 1].offset + requests[i - 1].bytes, requests[i].offset);
    }
  }

  Filler::Options options_{.read_ahead_bytes = 0};
  std::optional<TestLayer> layer_;
  std::shared_ptr<LayerImage> image_;
  std::shared_ptr<FakeBlob> blob_;
  std::atomic<int> completions_{0};
  std::unique_ptr<Filler> filler_;
  std::shared_ptr<FillLayer> fill_;
};

TEST_F(FillerTest, RefusesOptionsThatCannotWork) {
  EXPECT_THAT(Filler::Create({.requests = 0}, nullptr), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(Filler::Create({.request_bytes = 0}, nullptr),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(FillerTest, WritesWhatItHasFetched) {
  Start(4);
  Wanted want = Want(1);
  EXPECT_FALSE(want.ready());
  ASSERT_EQ(blob_->count(), 1);
  ExpectRange(0, 1, 1);
  EXPECT_EQ(blob_->requests()[0].fetch_class, FetchClass::kOnDemand);
  blob_->Answer(0);
  EXPECT_THAT(want.Get().status, IsOk());
  EXPECT_EQ(want.Get().held, nullptr);
  ExpectFilled(1);
  EXPECT_FALSE(image_->extents().Has(0));
  EXPECT_EQ(filler_->counters().image_bytes, kChunk);
  EXPECT_EQ(filler_->counters().blob_bytes, fill_->state().fetched_bytes);
}

TEST_F(FillerTest, AnswersAtOnceWhenAllIsPresent) {
  Start(2);
  Wanted first = Want(0, 2);
  blob_->Answer(0);
  EXPECT_THAT(first.Get().status, IsOk());
  EXPECT_TRUE(Want(0, 2).ready());
  EXPECT_EQ(blob_->count(), 1);
  EXPECT_EQ(filler_->counters().wants, 2);
  EXPECT_EQ(filler_->counters().wants_absent, 1);
}

TEST_F(FillerTest, AnswersAtOnceWhereThereIsNoData) {
  Start(1);
  EXPECT_TRUE(Wanted(*filler_, fill_, 0, 1).ready());
  EXPECT_TRUE(Wanted(*filler_, fill_, Chunk(0).image_offset, 0).ready());
  EXPECT_EQ(blob_->count(), 0);
}

TEST_F(FillerTest, JoinsWantsOfOneSpan) {
  Start(2);
  Wanted first = Want(0);
  Wanted second = Want(0, 2);
  ASSERT_EQ(blob_->count(), 2);
  ExpectRange(0, 0, 0);
  ExpectRange(1, 1, 1);
  blob_->Answer(1);
  EXPECT_TRUE(Eventually([this] { return image_->extents().Has(1); }));
  EXPECT_FALSE(second.ready());
  blob_->Answer(0);
  EXPECT_THAT(first.Get().status, IsOk());
  EXPECT_THAT(second.Get().status, IsOk());
  ExpectFilled(0);
  ExpectFilled(1);
}

TEST_F(FillerTest, JoinsWhatPrefetchHasAskedFor) {
  Start(4);
  filler_->Prefetch(fill_, layer_->blob().size());
  ASSERT_EQ(blob_->count(), 1);
  EXPECT_EQ(blob_->requests()[0].fetch_class, FetchClass::kPrefetch);
  Wanted want = Want(2);
  EXPECT_EQ(blob_->count(), 1);
  blob_->Answer(0);
  EXPECT_THAT(want.Get().status, IsOk());
}

TEST_F(FillerTest, AsksForNeighboursTogether) {
  Start(5);
  Wanted want = Want(1, 3);
  ASSERT_EQ(blob_->count(), 1);
  ExpectRange(0, 1, 3);
  blob_->Answer(0);
  EXPECT_THAT(want.Get().status, IsOk());
}

TEST_F(FillerTest, AsksForNothingBetweenAbsentSpans) {
  Start(5);
  Wanted middle = Want(2);
  blob_->Answer(0);
  EXPECT_THAT(middle.Get().status, IsOk());
  Wanted all = Want(0, 5);
  ASSERT_EQ(blob_->count(), 3);
  ExpectRange(1, 0, 1);
  ExpectRange(2, 3, 4);
  blob_->Answer(1);
  blob_->Answer(2);
  EXPECT_THAT(all.Get().status, IsOk());
}

TEST_F(FillerTest, SplitsAtTheLengthOfARequest) {
  options_.request_bytes = 25'000;  // two members of about 10,000 bytes, not three
  Start(5);
  Wanted want = Want(0, 5);
  ASSERT_EQ(blob_->count(), 3);
  ExpectRange(0, 0, 1);
  ExpectRange(1, 2, 3);
  ExpectRange(2, 4, 4);
}

TEST_F(FillerTest, ReleasesASpanBeforeItsRequestEnds) {
  Start(3);
  Wanted all = Want(0, 3);
  Wanted first = Want(0);
  ASSERT_EQ(blob_->count(), 1);
  EXPECT_TRUE(blob_->Deliver(0, image_->chunks().span(0).blob_offset, layer_->Member(*image_, 0)));
  EXPECT_THAT(first.Get().status, IsOk());
  EXPECT_FALSE(all.ready());
}

TEST_F(FillerTest, SendsDemandBeyondTheLimitOfRequests) {
  options_.requests = 1;
  options_.request_bytes = 1;
  Start(20);
  filler_->Prefetch(fill_, layer_->blob().size());
  ASSERT_EQ(blob_->count(), 1);
  for (uint32_t i = 10; i < 20; ++i) {
    Want(i);
    ASSERT_EQ(blob_->count(), i - 8);
    EXPECT_EQ(blob_->requests().back().fetch_class, FetchClass::kOnDemand);
    ExpectRange(i - 9, i, i);
  }
}

TEST_F(FillerTest, NeverAsksForASpanTwice) {
  options_.request_bytes = 50'000;
  options_.requests = 3;
  Start(60);
  filler_->FetchAll(fill_);
  filler_->Prefetch(fill_, layer_->blob().size() / 2);
  std::vector<Wanted> wants;
  for (uint32_t i = 0; i < 60; i += 7) {
    wants.push_back(Want(i));
  }
  blob_->Serve();
  for (Wanted& want : wants) {
    EXPECT_THAT(want.Get().status, IsOk());
  }
  EXPECT_TRUE(Eventually([this] { return image_->extents().complete(); }));
  ExpectNoOverlap();
  EXPECT_EQ(filler_->counters().blob_bytes, layer_->span_bytes());
}

TEST_F(FillerTest, BackgroundMovesWhileReadersKeepEverythingBusy) {
  options_.in_flight_bytes = 40'000;
  options_.request_bytes = 10'000;
  Start(40);
  for (uint32_t i = 0; i < 20; ++i) {
    Want(i);
  }
  filler_->FetchAll(fill_);
  const auto in_background = [this] {
    const auto requests = blob_->requests();
    return std::count_if(requests.begin(), requests.end(), [](const auto& request) {
      return request.fetch_class == FetchClass::kBackground;
    });
  };
  EXPECT_EQ(in_background(), 1);
  blob_->Answer(blob_->count() - 1);
  EXPECT_TRUE(Eventually([&] { return in_background() == 2; }));
}

TEST_F(FillerTest, PrefetchGoesBeforeBackground) {
  options_.requests = 2;
  options_.request_bytes = 10'000;
  Start(20);
  filler_->FetchAll(fill_);
  filler_->Prefetch(fill_, layer_->blob().size());
  // Each has one; the next one is prefetch's.
  ASSERT_EQ(blob_->count(), 3);
  EXPECT_EQ(blob_->requests()[2].fetch_class, FetchClass::kPrefetch);
}

TEST_F(FillerTest, PrefetchStopsAtItsEnd) {
  Start(10);
  filler_->Prefetch(fill_, image_->chunks().span(4).blob_offset);
  ASSERT_EQ(blob_->count(), 1);
  ExpectRange(0, 0, 3);
  blob_->Answer(0);
  EXPECT_TRUE(Eventually([this] { return image_->extents().present() == 4; }));
  filler_->Prefetch(fill_, image_->chunks().span(4).blob_offset);
  EXPECT_EQ(blob_->count(), 1);
}

TEST_F(FillerTest, BackgroundCanBeSwitchedOff) {
  options_.background = false;
  Start(2);
  filler_->FetchAll(fill_);
  EXPECT_EQ(blob_->count(), 0);
}

TEST_F(FillerTest, TellsOnceThatALayerIsCompleteAndPersisted) {
  options_.persist_interval = std::chrono::hours(1);
  StartFiles({{100'000, kChunk}, {5, 5}, {50'000, 7'000}});
  blob_->Serve();
  filler_->FetchAll(fill_);
  EXPECT_TRUE(Eventually([this] { return completions_ == 1; }));
  EXPECT_TRUE(layer_->Open()->extents().complete());
  for (uint32_t i = 0; i < image_->chunks().chunks(); ++i) {
    ExpectFilled(i);
  }
  filler_.reset();
  EXPECT_EQ(completions_, 1);
}

TEST_F(FillerTest, DoesNotTellOfALayerThatWasComplete) {
  Start(2);
  blob_->Serve();
  EXPECT_THAT(Want(0, 2).Get().status, IsOk());
  EXPECT_TRUE(Eventually([this] { return completions_ == 1; }));
  const auto again = filler_->Add(layer_->Open(), blob_, [this](FillLayer&) { ++completions_; });
  filler_->FetchAll(again);
  filler_.reset();
  EXPECT_EQ(completions_, 1);
}

TEST_F(FillerTest, PersistsEveryInterval) {
  options_.persist_interval = std::chrono::milliseconds(1);
  Start(2);
  blob_->Serve();
  EXPECT_THAT(Want(0).Get().status, IsOk());
  EXPECT_TRUE(Eventually([this] { return layer_->Open()->extents().Has(0); }));
}

TEST_F(FillerTest, LosesInACrashOnlyWhatWasNotPersisted) {
  options_.persist_interval = std::chrono::hours(1);
  Start(2);
  blob_->Serve();
  EXPECT_THAT(Want(0).Get().status, IsOk());
  // What a process that begins now would find.
  EXPECT_FALSE(layer_->Open()->extents().Has(0));
}

TEST_F(FillerTest, PersistsWhenItEnds) {
  options_.persist_interval = std::chrono::hours(1);
  Start(2);
  blob_->Serve();
  EXPECT_THAT(Want(0).Get().status, IsOk());
  filler_.reset();
  EXPECT_TRUE(layer_->Open()->extents().Has(0));
}

TEST_F(FillerTest, ForgettingStopsBackgroundWork) {
  options_.request_bytes = 10'000;
  options_.in_flight_bytes = 40'000;
  Start(20);
  filler_->FetchAll(fill_);
  const size_t before = blob_->count();
  filler_->Forget(fill_);
  EXPECT_FALSE(blob_->Deliver(0, 0, "x"));
  blob_->Finish(0, MakeStatus(StatusCode::kCancelled, "ended by its receiver"));
  EXPECT_EQ(blob_->count(), before);
  Wanted want = Want(10);
  ASSERT_EQ(blob_->count(), before + 1);
  blob_->Answer(before);
  EXPECT_THAT(want.Get().status, IsOk());
  EXPECT_EQ(blob_->count(), before + 1);
}

TEST_F(FillerTest, ForgettingServesThoseWhoWait) {
  Start(4);
  filler_->FetchAll(fill_);
  Wanted want = Want(3);
  filler_->Forget(fill_);
  ASSERT_EQ(blob_->count(), 1);
  blob_->Answer(0);
  EXPECT_THAT(want.Get().status, IsOk());
}

TEST_F(FillerTest, EndsWithCancelledWhileRequestsAreUnderWay) {
  Start(4);
  Wanted want = Want(0);
  filler_->FetchAll(fill_);
  filler_.reset();
  EXPECT_THAT(want.Get().status, StatusIs(StatusCode::kCancelled));
  // The answers come all the same.
  EXPECT_FALSE(blob_->Deliver(0, image_->chunks().span(0).blob_offset, "x"));
  blob_->Finish(0, OkStatus());
  blob_->Answer(1);
  EXPECT_EQ(image_->extents().present(), 0);
}

TEST_F(FillerTest, AWantMayFollowInItsCallback) {
  Start(2);
  blob_->Serve();
  std::promise<Status> second;
  filler_->Want(fill_, Chunk(0).image_offset, 1, [&](const Status&, const auto&) {
    filler_->Want(fill_, Chunk(1).image_offset, 1,
                  [&](Status status, const auto&) { second.set_value(std::move(status)); });
  });
  auto answer = second.get_future();
  ASSERT_EQ(answer.wait_for(testing::kGenerous), std::future_status::ready);
  EXPECT_THAT(answer.get(), IsOk());
}

TEST_F(FillerTest, ServesManyThreadsThatWantTheSame) {
  options_.decode_threads = 4;
  options_.read_ahead_bytes = 1 << 20;
  Start(50);
  blob_->Serve();
  std::atomic<int> failures{0};
  std::vector<std::thread> readers;
  for (uint32_t reader = 0; reader < 8; ++reader) {
    readers.emplace_back([&, reader] {
      for (uint32_t i = 0; i < 200; ++i) {
        const uint32_t chunk = (i * (reader + 1)) % 50;
        const bool good =
            Want(chunk).Get().status.ok() &&
            ReadImage(*image_, Chunk(chunk).image_offset, kChunk) == layer_->ChunkContent(chunk);
        failures += good ? 0 : 1;
      }
    });
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(failures, 0);
  ExpectNoOverlap();
}

TEST_F(FillerTest, ReadsAheadOfASequentialReader) {
  options_.read_ahead_bytes = uint64_t{64} << 20;
  options_.request_bytes = 100'000;
  Start(400);
  Wanted first = Want(0);
  EXPECT_EQ(blob_->count(), 1);
  Wanted second = Want(1);
  const auto requests = blob_->requests();
  ASSERT_GT(requests.size(), 3);
  EXPECT_EQ(requests[1].fetch_class, FetchClass::kOnDemand);
  uint64_t next = requests[1].offset + requests[1].bytes;
  for (size_t i = 2; i < requests.size(); ++i) {
    EXPECT_EQ(requests[i].fetch_class, FetchClass::kPrefetch);
    EXPECT_EQ(requests[i].offset, next);
    next += requests[i].bytes;
  }
}

TEST_F(FillerTest, MovesUpWhatWasQueuedForReadAhead) {
  options_.read_ahead_bytes = uint64_t{64} << 20;
  options_.requests = 1;
  options_.request_bytes = 50'000;
  options_.in_flight_bytes = 200'000;
  Start(400);
  Wanted first = Want(0);
  Wanted second = Want(1);
  const size_t before = blob_->count();
  Wanted third = Want(80);
  ASSERT_EQ(blob_->count(), before + 1);
  EXPECT_EQ(blob_->requests().back().fetch_class, FetchClass::kOnDemand);
  ExpectRange(before, 80, 80);
  blob_->Serve();
  EXPECT_THAT(third.Get().status, IsOk());
  EXPECT_THAT(first.Get().status, IsOk());
  EXPECT_THAT(second.Get().status, IsOk());
}

TEST_F(FillerTest, FetchesNoMoreThanScatteredReadersTouch) {
  options_.read_ahead_bytes = uint64_t{64} << 20;
  Start(600);
  blob_->Serve();
  uint64_t expected = 0;
  for (uint32_t i = 0; i < 100; ++i) {
    const uint32_t chunk = i * 349 % 600;
    expected += image_->chunks().span(chunk).blob_bytes;
    EXPECT_THAT(Wanted(*filler_, fill_, Chunk(chunk).image_offset + 4096, 4096).Get().status,
                IsOk());
  }
  EXPECT_EQ(filler_->counters().blob_bytes, expected);
}

TEST_F(FillerTest, BoundsWhatIsInMemory) {
  options_.in_flight_bytes = 100'000;
  options_.request_bytes = 20'000;
  options_.requests = 100;
  Start(100);
  filler_->FetchAll(fill_);
  filler_->Prefetch(fill_, layer_->blob().size());
  for (uint32_t i = 0; i < 100; ++i) {
    Want(i);
  }
  uint64_t asked = 0;
  for (const auto& request : blob_->requests()) {
    asked += request.bytes;
  }
  EXPECT_LE(asked, 100'000 + 2 * 20'000);
  blob_->Serve();
  EXPECT_TRUE(Eventually([this] { return image_->extents().complete(); }));
}

}  // namespace
}  // namespace strata
