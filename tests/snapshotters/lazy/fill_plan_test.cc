// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fill_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/snapshotters/lazy/fill_fixture.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::TestLayer;

TableSpan Span(uint64_t offset, uint64_t bytes) {
  return {.blob_offset = offset, .blob_bytes = bytes};
}

TEST(FetchGroupTest, TakesNeighbours) {
  FetchGroup group(100, 0);
  EXPECT_TRUE(group.empty());
  EXPECT_TRUE(group.Add(Span(10, 20)));
  EXPECT_TRUE(group.Add(Span(30, 5)));
  EXPECT_EQ(group.offset(), 10);
  EXPECT_EQ(group.bytes(), 25);
  EXPECT_EQ(group.span_bytes(), 25);
}

TEST(FetchGroupTest, TakesOneSpanOfAnyLength) {
  FetchGroup group(100, 0);
  EXPECT_TRUE(group.Add(Span(10, 1000)));
  EXPECT_FALSE(group.Add(Span(1010, 1)));
  EXPECT_EQ(group.bytes(), 1000);
}

TEST(FetchGroupTest, RefusesGapsThatAreTooLong) {
  FetchGroup group(100, 5);
  EXPECT_TRUE(group.Add(Span(10, 10)));
  EXPECT_FALSE(group.Add(Span(26, 10)));
  EXPECT_TRUE(group.Add(Span(25, 10)));
  EXPECT_EQ(group.bytes(), 25);
  EXPECT_EQ(group.span_bytes(), 20);
}

TEST(FetchGroupTest, RefusesWhatLiesBefore) {
  FetchGroup group(100, 100);
  EXPECT_TRUE(group.Add(Span(50, 10)));
  EXPECT_FALSE(group.Add(Span(40, 10)));
}

// Two files of 10,000 bytes in chunks of 4,000; each begins at a block of the image.
class FillPlanTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::vector<uint32_t> Spans(uint64_t offset, uint64_t bytes) const {
    return AbsentSpans(image_->chunks(), image_->extents(),
                       ChunksIn(image_->chunks(), offset, bytes));
  }

  const TestLayer layer_{{{10'000, 4'000}, {10'000, 4'000}}};
  const std::shared_ptr<LayerImage> image_ = layer_.Open();
  const uint64_t data_ = image_->chunks().chunk(0).image_offset;
};

TEST_F(FillPlanTest, FindsTheSpansOfARange) {
  EXPECT_THAT(Spans(data_, 1), ElementsAre(0));
  EXPECT_THAT(Spans(data_ + 3'999, 1), ElementsAre(0));
  EXPECT_THAT(Spans(data_ + 3'999, 2), ElementsAre(0, 1));
  EXPECT_THAT(Spans(data_, 10'000), ElementsAre(0, 1, 2));
}

TEST_F(FillPlanTest, FindsNothingBetweenFilesAndInMetadata) {
  EXPECT_THAT(Spans(data_ + 10'000, 2'000), IsEmpty());
  EXPECT_THAT(Spans(0, data_), IsEmpty());
  EXPECT_THAT(Spans(data_, 0), IsEmpty());
}

TEST_F(FillPlanTest, StopsAtTheEndOfTheImage) {
  EXPECT_THAT(Spans(0, std::numeric_limits<uint64_t>::max()), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(Spans(std::numeric_limits<uint64_t>::max(), 2), IsEmpty());
}

TEST_F(FillPlanTest, LeavesOutWhatIsPresent) {
  image_->extents().Set(1);
  EXPECT_THAT(Spans(data_, 10'000), ElementsAre(0, 2));
  EXPECT_FALSE(IsSpanAbsent(image_->chunks(), image_->extents(), 1));
  EXPECT_TRUE(IsSpanAbsent(image_->chunks(), image_->extents(), 2));
}

}  // namespace
}  // namespace strata
