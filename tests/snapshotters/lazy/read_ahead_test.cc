// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/read_ahead.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <vector>

namespace strata {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kRead = uint64_t{128} << 10;
constexpr uint64_t kMost = 64 * kMiB;

// A reader that goes on, and what was asked for on its behalf.
struct Reader {
  ReadAhead& ahead;
  uint64_t next = 0;
  uint64_t asked_end = 0;

  ReadAhead::Ask Read(bool waits) {
    const ReadAhead::Ask ask = ahead.OnWant(next, kRead, waits);
    next += kRead;
    if (ask.bytes > 0) {
      asked_end = ask.offset + ask.bytes;
    }
    return ask;
  }
};

TEST(ReadAheadTest, AsksForNothingAfterOneWant) {
  ReadAhead ahead(kMost);
  EXPECT_EQ(ahead.OnWant(0, kRead, true).bytes, 0);
}

TEST(ReadAheadTest, AsksForWhatFollowsTwoWantsInARow) {
  ReadAhead ahead(kMost);
  Reader reader{ahead};
  reader.Read(true);
  const ReadAhead::Ask ask = reader.Read(true);
  EXPECT_EQ(ask.offset, 2 * kRead);
  EXPECT_EQ(ask.bytes, 2 * kMiB);
}

TEST(ReadAheadTest, AsksForNothingWhenWantsAreScattered) {
  ReadAhead ahead(kMost);
  uint64_t state = 1;
  for (int i = 0; i < 1000; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    EXPECT_EQ(ahead.OnWant((state >> 20) & ~uint64_t{4095}, 4096, true).bytes, 0);
  }
}

TEST(ReadAheadTest, AsksForNothingWhenWantsGoBackwards) {
  ReadAhead ahead(kMost);
  for (uint64_t at = 100 * kMiB; at > 0; at -= kMiB) {
    EXPECT_EQ(ahead.OnWant(at, 4096, true).bytes, 0);
  }
}

TEST(ReadAheadTest, AsksForNothingWhenTheSameIsWantedAgain) {
  ReadAhead ahead(kMost);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(ahead.OnWant(kMiB, kRead, true).bytes, 0);
  }
}

TEST(ReadAheadTest, NeverAsksTwiceForTheSame) {
  ReadAhead ahead(kMost);
  Reader reader{ahead};
  uint64_t end = 0;
  while (reader.next < 300 * kMiB) {
    const ReadAhead::Ask ask = reader.Read(reader.next % (3 * kMiB) == 0);
    if (ask.bytes > 0) {
      EXPECT_GE(ask.offset, end);
      EXPECT_GE(ask.offset, reader.next);
      end = ask.offset + ask.bytes;
    }
  }
  EXPECT_GT(end, 300 * kMiB);
}

TEST(ReadAheadTest, GrowsWhileTheReaderWaitsUpToTheLimit) {
  ReadAhead ahead(kMost);
  Reader reader{ahead};
  uint64_t most = 0;
  while (reader.next < 300 * kMiB) {
    reader.Read(true);
    most = std::max(most, reader.asked_end - std::min(reader.asked_end, reader.next));
  }
  EXPECT_EQ(most, kMost);
}

TEST(ReadAheadTest, FillsTheLinkInAFewSteps) {
  ReadAhead ahead(kMost);
  Reader reader{ahead};
  reader.Read(true);
  reader.Read(true);
  int waits = 0;
  while (reader.asked_end < reader.next + kMost) {
    // The reader is fast: it finds all that it asked for, and waits for what comes next.
    reader.next = std::max(reader.next, reader.asked_end);
    reader.Read(true);
    ++waits;
  }
  EXPECT_LE(waits, 5);
}

TEST(ReadAheadTest, StaysSmallForAReaderThatNeverWaits) {
  ReadAhead ahead(kMost);
  Reader reader{ahead};
  reader.Read(true);
  while (reader.next < 100 * kMiB) {
    reader.Read(false);
    EXPECT_LE(reader.asked_end, reader.next + 2 * kMiB);
  }
  EXPECT_GE(reader.asked_end, reader.next);
}

TEST(ReadAheadTest, WatchesWhereAPresentWantMovesTheWindow) {
  ReadAhead ahead(kMost);
  Reader reader{ahead};
  EXPECT_FALSE(ahead.Watches(0, kRead));
  reader.Read(true);
  EXPECT_TRUE(ahead.Watches(reader.next, kRead));
  reader.Read(true);
  // So soon the window does not move.
  EXPECT_FALSE(ahead.Watches(reader.next, kRead));
  EXPECT_TRUE(ahead.Watches(reader.next + kMiB, kRead));
  EXPECT_FALSE(ahead.Watches(reader.next + 100 * kMiB, kRead));
}

TEST(ReadAheadTest, KeepsUpWhenOnlyWatchedWantsAreTold) {
  ReadAhead ahead(kMost);
  Reader reader{ahead};
  reader.Read(true);
  reader.Read(true);
  while (reader.next < 50 * kMiB) {
    if (ahead.Watches(reader.next, kRead)) {
      reader.Read(false);
    } else {
      reader.next += kRead;
    }
    EXPECT_GE(reader.asked_end, reader.next);
  }
}

TEST(ReadAheadTest, TellsSeveralReadersApart) {
  ReadAhead ahead(kMost);
  Reader first{ahead};
  Reader second{ahead, 1000 * kMiB};
  first.Read(true);
  second.Read(true);
  EXPECT_GT(first.Read(true).bytes, 0);
  EXPECT_GT(second.Read(true).bytes, 0);
  EXPECT_LT(first.asked_end, 10 * kMiB);
  EXPECT_GT(second.asked_end, 1000 * kMiB);
}

TEST(ReadAheadTest, ToleratesRequestsThatOvertakeOneAnother) {
  ReadAhead ahead(kMost);
  uint64_t asked = 0;
  for (const uint64_t number : {0U, 2U, 1U, 4U, 3U, 6U, 5U}) {
    asked += ahead.OnWant(number * kRead, kRead, true).bytes;
  }
  EXPECT_GE(asked, 2 * kMiB);
}

TEST(ReadAheadTest, GoesOnBehindAJumpOfAPageFault) {
  ReadAhead ahead(kMost);
  EXPECT_EQ(ahead.OnWant(10 * kMiB, kRead / 2, true).bytes, 0);
  const ReadAhead::Ask ask = ahead.OnWant(10 * kMiB + 2 * kRead, kRead / 2, true);
  EXPECT_EQ(ask.offset, 10 * kMiB + 5 * kRead / 2);
  EXPECT_GT(ask.bytes, 0);
}

TEST(ReadAheadTest, TakesNoJumpOfASmallReadForAStream) {
  ReadAhead ahead(kMost);
  for (const uint64_t at : std::initializer_list<uint64_t>{0, 40, 13, 27, 60, 75, 51}) {
    EXPECT_EQ(ahead.OnWant(10 * kMiB + at * 4096, 4096, true).bytes, 0);
  }
}

TEST(ReadAheadTest, ScatteredWantsDoNotPushOutReadersThatGoOn) {
  ReadAhead ahead(kMost);
  std::vector<Reader> readers;
  for (uint64_t i = 0; i < 16; ++i) {
    readers.push_back({ahead, i * 1000 * kMiB});
    readers.back().Read(true);
    readers.back().Read(true);
  }
  for (uint64_t i = 0; i < 500; ++i) {
    EXPECT_EQ(ahead.OnWant((50'000 + i * 100) * kMiB, kRead, true).bytes, 0);
  }
  for (Reader& reader : readers) {
    reader.next = reader.asked_end;
    EXPECT_GT(reader.Read(true).bytes, 0);
  }
}

TEST(ReadAheadTest, SharesTheLimitBetweenReaders) {
  ReadAhead ahead(kMost);
  std::vector<Reader> readers;
  for (uint64_t i = 0; i < 8; ++i) {
    readers.push_back({ahead, i * 1000 * kMiB});
  }
  for (int round = 0; round < 1000; ++round) {
    for (Reader& reader : readers) {
      reader.Read(true);
    }
  }
  for (const Reader& reader : readers) {
    EXPECT_LE(reader.asked_end, reader.next + kMost / 8);
  }
}

TEST(ReadAheadTest, SurvivesTheEndOfTheAddressRange) {
  ReadAhead ahead(kMost);
  const uint64_t end = std::numeric_limits<uint64_t>::max();
  ahead.OnWant(end - 3 * kRead, kRead, true);
  const ReadAhead::Ask ask = ahead.OnWant(end - 2 * kRead, kRead, true);
  EXPECT_LE(ask.bytes, kRead);
}

TEST(ReadAheadTest, CanBeSwitchedOff) {
  ReadAhead ahead(0);
  Reader reader{ahead};
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(reader.Read(true).bytes, 0);
  }
}

}  // namespace
}  // namespace strata
