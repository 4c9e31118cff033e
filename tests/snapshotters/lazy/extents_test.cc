// SPDX-License-Identifier: Apache-2.0
//
// Extents in memory and on disk, and what a crash between two steps leaves.
#include "snapshotters/lazy/extents.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <thread>
#include <vector>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/crc32c.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

constexpr uint32_t kChunks = 150;
constexpr Extents::Identity kIdentity = {
    .chunks = kChunks, .image_bytes = 1 << 20, .table_checksum = 77};

// FORMAT.md, "extents".
constexpr size_t kVersionAt = 8;
constexpr size_t kChecksumAt = 12;
constexpr size_t kPresentAt = 40;
constexpr size_t kBitsAt = 64;

class ExtentsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto dir = OpenFile(dir_.path(), O_RDONLY | O_DIRECTORY);
    ASSERT_THAT(dir, IsOk());
    dir_fd_ = *std::move(dir);
    auto image = OpenAt(dir_fd_.get(), "image", O_RDWR | O_CREAT, 0600);
    ASSERT_THAT(image, IsOk());
    image_fd_ = *std::move(image);
  }
  void TearDown() override { FaultPoints::Arm({}); }

  Status Persist(Extents& extents) {
    return extents.Persist(image_fd_.get(), dir_fd_.get(), "extents");
  }
  Status Load(Extents& extents) { return extents.Load(dir_fd_.get(), "extents"); }

  // A file with chunks 1, 64 and 149.
  std::string Good() {
    Extents extents(kIdentity);
    for (const uint32_t chunk : {1U, 64U, 149U}) {
      extents.Set(chunk);
    }
    EXPECT_THAT(Persist(extents), IsOk());
    return *ReadFileAt(dir_fd_.get(), "extents", 4096);
  }
  void Put(const std::string& content) {
    ASSERT_THAT(WriteFileAtomicAt(dir_fd_.get(), "extents", content, 0600), IsOk());
  }

  TempDir dir_;
  UniqueFd dir_fd_;
  UniqueFd image_fd_;
};

std::string Sealed(std::string file) {
  std::memset(file.data() + kChecksumAt, 0, 4);
  const uint32_t sum = Crc32c({reinterpret_cast<const uint8_t*>(file.data()), file.size()});
  std::memcpy(file.data() + kChecksumAt, &sum, sizeof(sum));
  return file;
}

TEST_F(ExtentsTest, SetsEachChunkOnce) {
  Extents extents(kIdentity);
  EXPECT_FALSE(extents.Has(64));
  EXPECT_TRUE(extents.Set(64));
  EXPECT_FALSE(extents.Set(64));
  EXPECT_TRUE(extents.Has(64));
  EXPECT_FALSE(extents.Has(63));
  EXPECT_EQ(extents.present(), 1U);
}

TEST_F(ExtentsTest, IsCompleteWithItsLastChunk) {
  Extents extents(kIdentity);
  for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
    EXPECT_FALSE(extents.complete());
    extents.Set(chunk);
  }
  EXPECT_TRUE(extents.complete());
  EXPECT_EQ(extents.FirstAbsent(0, kChunks), kChunks);
}

TEST_F(ExtentsTest, WithoutChunksIsComplete) {
  Extents extents({.chunks = 0, .image_bytes = 4096, .table_checksum = 1});
  EXPECT_TRUE(extents.complete());
  EXPECT_FALSE(extents.Has(0));
  EXPECT_THAT(Persist(extents), IsOk());
  EXPECT_THAT(Load(extents), IsOk());
}

TEST_F(ExtentsTest, FindsTheFirstAbsentOfAnyRange) {
  Extents extents(kIdentity);
  for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
    if (chunk % 67 != 5) {
      extents.Set(chunk);
    }
  }
  for (uint32_t first = 0; first <= kChunks; ++first) {
    for (uint32_t end = first; end <= kChunks; ++end) {
      uint32_t expected = first;
      while (expected < end && extents.Has(expected)) {
        ++expected;
      }
      ASSERT_EQ(extents.FirstAbsent(first, end), expected) << first << " " << end;
    }
  }
}

TEST_F(ExtentsTest, CountsWhatManyThreadsSet) {
  constexpr uint32_t kMany = 10'000;
  Extents extents({.chunks = kMany, .image_bytes = 1, .table_checksum = 1});
  std::atomic<uint32_t> won = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (uint32_t chunk = 0; chunk < kMany; ++chunk) {
        won += extents.Set(chunk) ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(won, kMany);
  EXPECT_TRUE(extents.complete());
}

TEST_F(ExtentsTest, ComesBackFromDisk) {
  (void)Good();  // for what it leaves on disk
  Extents extents(kIdentity);
  ASSERT_THAT(Load(extents), IsOk());
  EXPECT_EQ(extents.present(), 3U);
  EXPECT_TRUE(extents.Has(1) && extents.Has(64) && extents.Has(149));
  EXPECT_FALSE(extents.dirty());
}

TEST_F(ExtentsTest, IsDirtyUntilItIsPersisted) {
  Extents extents(kIdentity);
  EXPECT_FALSE(extents.dirty());
  extents.Set(3);
  EXPECT_TRUE(extents.dirty());
  ASSERT_THAT(Persist(extents), IsOk());
  EXPECT_FALSE(extents.dirty());
}

TEST_F(ExtentsTest, HasHolesFromTheStart) {
  Extents extents(kIdentity);
  extents.SetHole(7);
  EXPECT_TRUE(extents.Has(7));
  EXPECT_EQ(extents.present(), 1U);
  EXPECT_FALSE(extents.dirty());
}

TEST_F(ExtentsTest, HasHolesOnceWhetherTheFileKnowsThemOrNot) {
  (void)Good();
  Extents extents(kIdentity);
  ASSERT_THAT(Load(extents), IsOk());
  extents.SetHole(64);
  extents.SetHole(65);
  EXPECT_EQ(extents.present(), 4U);
  EXPECT_FALSE(extents.dirty());
}

TEST_F(ExtentsTest, CountsGenerations) {
  const std::string first = Good();
  Extents extents(kIdentity);
  ASSERT_THAT(Load(extents), IsOk());
  extents.Set(2);
  ASSERT_THAT(Persist(extents), IsOk());
  const std::string second = *ReadFileAt(dir_fd_.get(), "extents", 4096);
  uint64_t before = 0;
  uint64_t after = 0;
  std::memcpy(&before, first.data() + 16, sizeof(before));
  std::memcpy(&after, second.data() + 16, sizeof(after));
  EXPECT_EQ(after, before + 1);
}

TEST_F(ExtentsTest, WithoutAFileAreAbsent) {
  Extents extents(kIdentity);
  EXPECT_THAT(Load(extents), StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(extents.present(), 0U);
}

TEST_F(ExtentsTest, WithAnyFlippedByteAreAbsent) {
  const std::string good = Good();
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    ASSERT_NO_FATAL_FAILURE(Put(bad));
    Extents extents(kIdentity);
    ASSERT_THAT(Load(extents), StatusIs(StatusCode::kDataLoss)) << at;
    ASSERT_EQ(extents.present(), 0U);
  }
}

TEST_F(ExtentsTest, TornAreAbsentAndUsable) {
  const std::string good = Good();
  for (size_t length = 0; length < good.size(); ++length) {
    ASSERT_NO_FATAL_FAILURE(Put(good.substr(0, length)));
    Extents extents(kIdentity);
    ASSERT_THAT(Load(extents), StatusIs(StatusCode::kDataLoss)) << length;
    ASSERT_EQ(extents.FirstAbsent(0, kChunks), 0U);
    ASSERT_TRUE(extents.Set(149));
  }
  ASSERT_NO_FATAL_FAILURE(Put(good + std::string(8, '\0')));
  Extents extents(kIdentity);
  EXPECT_THAT(Load(extents), StatusIs(StatusCode::kDataLoss));
}

TEST_F(ExtentsTest, OfAnotherImageAreAbsent) {
  (void)Good();
  for (const auto& [chunks, image_bytes, table] :
       {std::tuple(kChunks + 1, uint64_t{1} << 20, 77U), std::tuple(kChunks, uint64_t{4096}, 77U),
        std::tuple(kChunks, uint64_t{1} << 20, 78U)}) {
    Extents extents({.chunks = chunks, .image_bytes = image_bytes, .table_checksum = table});
    EXPECT_THAT(Load(extents), StatusIs(StatusCode::kDataLoss, HasSubstr("another image")));
    EXPECT_EQ(extents.present(), 0U);
  }
}

TEST_F(ExtentsTest, OfAnotherVersionAreAbsentAndSaySo) {
  std::string file = Good();
  file[kVersionAt] = 9;
  ASSERT_NO_FATAL_FAILURE(Put(Sealed(file)));
  Extents extents(kIdentity);
  EXPECT_THAT(Load(extents), StatusIs(StatusCode::kDataLoss, HasSubstr("version 9 is not known")));
}

TEST_F(ExtentsTest, WhoseBitsDoNotAddUpAreAbsent) {
  std::string count = Good();
  count[kPresentAt + 0] = 4;
  std::string beyond = Good();
  beyond[kPresentAt + 0] = 4;
  beyond[kBitsAt + 18] = static_cast<char>(0x80);  // of chunk 151
  for (const std::string& bad : {count, beyond}) {
    ASSERT_NO_FATAL_FAILURE(Put(Sealed(bad)));
    Extents extents(kIdentity);
    EXPECT_THAT(Load(extents), StatusIs(StatusCode::kDataLoss));
    EXPECT_EQ(extents.present(), 0U);
  }
}

TEST_F(ExtentsTest, AFifoInTheirPlaceHoldsNobodyUp) {
  ASSERT_EQ(::mkfifoat(dir_fd_.get(), "extents", 0600), 0);
  Extents extents(kIdentity);
  EXPECT_THAT(Load(extents), StatusIs(StatusCode::kDataLoss));
}

// What is set while the disk syncs is not in the file: its bytes may not have been synced.
TEST_F(ExtentsTest, PersistWhatWasSetBeforeTheSync) {
  Extents extents(kIdentity);
  extents.Set(10);
  FaultPoints::Arm([&extents](std::string_view point) {
    if (point == "layer.persist.snapshot") {
      extents.Set(11);
    }
    return OkStatus();
  });
  ASSERT_THAT(Persist(extents), IsOk());
  EXPECT_TRUE(extents.dirty());
  Extents again(kIdentity);
  ASSERT_THAT(Load(again), IsOk());
  EXPECT_TRUE(again.Has(10));
  EXPECT_FALSE(again.Has(11));
}

TEST_F(ExtentsTest, AreWrittenAfterTheSync) {
  std::vector<std::string> steps;
  FaultPoints::Arm([&](std::string_view point) {
    const bool written = ::faccessat(dir_fd_.get(), "extents", F_OK, 0) == 0;
    steps.push_back(std::string(point) + (written ? " written" : ""));
    return OkStatus();
  });
  Extents extents(kIdentity);
  extents.Set(1);
  ASSERT_THAT(Persist(extents), IsOk());
  EXPECT_THAT(steps, ::testing::ElementsAre("layer.persist.snapshot", "layer.persist.synced",
                                            "layer.persist.written written"));
}

TEST_F(ExtentsTest, StayDirtyWhenTheDiskRefuses) {
  Extents extents(kIdentity);
  extents.Set(1);
  FaultPoints::Arm([](std::string_view point) {
    return point == "layer.persist.synced" ? ErrnoStatus(ENOSPC, "test") : OkStatus();
  });
  EXPECT_THAT(Persist(extents), StatusIs(StatusCode::kResourceExhausted));
  EXPECT_TRUE(extents.dirty());
  FaultPoints::Arm({});
  EXPECT_THAT(Persist(extents), IsOk());
  EXPECT_FALSE(extents.dirty());
}

TEST_F(ExtentsTest, AreNotWrittenAfterAFailedSync) {
  Extents extents(kIdentity);
  extents.Set(1);
  int pipe_ends[2];
  ASSERT_EQ(::pipe2(pipe_ends, O_CLOEXEC), 0);
  const UniqueFd reader(pipe_ends[0]);
  const UniqueFd no_file(pipe_ends[1]);  // fdatasync of a pipe fails (EINVAL)
  EXPECT_FALSE(extents.Persist(no_file.get(), dir_fd_.get(), "extents").ok());
  EXPECT_FALSE(Persist(extents).ok());
  EXPECT_TRUE(extents.dirty());
  EXPECT_NE(::faccessat(dir_fd_.get(), "extents", F_OK, 0), 0);
}

}  // namespace
}  // namespace strata
