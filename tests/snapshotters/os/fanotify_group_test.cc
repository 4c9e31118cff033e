// SPDX-License-Identifier: Apache-2.0
//
// Pre-content events, and what the presenter of lazy layers relies on in them.
#include "snapshotters/os/fanotify_group.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <future>
#include <string>

#include "snapshotters/base/file_at.h"
#include "snapshotters/os/open_elsewhere.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

using Buffer = std::array<std::byte, FanotifyGroup::kEventBytes>;

class FanotifyGroupMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: fanotify groups need root";
    }
    StatusOr<FanotifyGroup> group = FanotifyGroup::Create();
    ASSERT_THAT(group, IsOk());
    group_ = *std::move(group);
    file_ = NewFile("file");
    const Status status = group_.Mark(file_.get());
    if (status.code() == StatusCode::kUnimplemented) {
      GTEST_SKIP() << "kernel lacks pre-content events: " << status.ToString();
    }
    ASSERT_THAT(status, IsOk());
  }

  [[nodiscard]] UniqueFd NewFile(const std::string& name) const {
    StatusOr<UniqueFd> file = OpenFile(dir_.Join(name), O_RDWR | O_CREAT, 0600);
    EXPECT_THAT(file, IsOk());
    EXPECT_EQ(::ftruncate(file->get(), 1 << 20), 0);
    return *std::move(file);
  }

  // Opens the file anew, and reads a byte of it in a thread of its own: 0 or an errno.
  [[nodiscard]] std::future<int> Read(const std::string& name, off_t offset) const {
    return std::async(std::launch::async, [path = dir_.Join(name), offset] {
      const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
      char byte = 0;
      return ::pread(fd.get(), &byte, 1, offset) == 1 ? 0 : errno;
    });
  }
  // The same of one that is open.
  static std::future<int> ReadFrom(const UniqueFd& fd) {
    return std::async(std::launch::async, [number = fd.get()] {
      char byte = 0;
      return ::pread(number, &byte, 1, 0) == 1 ? 0 : errno;
    });
  }

  FanotifyGroup::Event Next() {
    const StatusOr<FanotifyGroup::Event> event = group_.Read(buffer_);
    EXPECT_THAT(event, IsOk());
    return event.value_or(FanotifyGroup::Event{});
  }

  TempDir dir_;
  FanotifyGroup group_;
  UniqueFd file_;  // opened before the mark
  alignas(8) Buffer buffer_{};
};

TEST_F(FanotifyGroupMountTest, AReaderGoesOnWhenItIsAllowed) {
  std::future<int> read = Read("file", 8192);
  const FanotifyGroup::Event event = Next();
  const UniqueFd fd(event.fd);
  EXPECT_EQ(event.pid, ::getpid());
  EXPECT_LE(event.offset, 8192U);
  EXPECT_GT(event.offset + event.bytes, 8192U);
  EXPECT_THAT(group_.Allow(event.fd), IsOk());
  EXPECT_EQ(read.get(), 0);
}

TEST_F(FanotifyGroupMountTest, AReaderThatIsDeniedFailsWithEio) {
  std::future<int> read = Read("file", 0);
  const UniqueFd fd(Next().fd);
  EXPECT_THAT(group_.Deny(fd.get()), IsOk());
  EXPECT_EQ(read.get(), EIO);
}

TEST_F(FanotifyGroupMountTest, AnEventStaysInItsBuffer) {
  std::future<int> read = Read("file", 0);
  const UniqueFd fd(Next().fd);
  const auto parsed = FanotifyGroup::Parse(buffer_);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->fd, fd.get());
  EXPECT_THAT(group_.Allow(fd.get()), IsOk());
  EXPECT_EQ(read.get(), 0);
}

TEST_F(FanotifyGroupMountTest, DescriptorsOfBeforeAndOfEventsDoNotWait) {
  char byte = 0;
  EXPECT_EQ(::pread(file_.get(), &byte, 1, 0), 1);
  std::future<int> read = Read("file", 0);
  const UniqueFd fd(Next().fd);
  EXPECT_EQ(::pwrite(fd.get(), "x", 1, 0), 1);
  EXPECT_EQ(::pread(fd.get(), &byte, 1, 0), 1);
  EXPECT_THAT(group_.Allow(fd.get()), IsOk());
  EXPECT_EQ(read.get(), 0);
}

TEST_F(FanotifyGroupMountTest, AnswersToNothingAreNotFound) {
  EXPECT_THAT(group_.Allow(1000), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(group_.Deny(1000), StatusIs(StatusCode::kNotFound));
}

TEST_F(FanotifyGroupMountTest, TheNumberIsEnoughForAnAnswer) {
  std::future<int> read = Read("file", 0);
  const int number = Next().fd;
  ASSERT_EQ(::close(number), 0);
  EXPECT_THAT(group_.Allow(number), IsOk());
  EXPECT_EQ(read.get(), 0);
}

TEST_F(FanotifyGroupMountTest, OfTwoUnderOneNumberTheFirstIsAnswered) {
  const UniqueFd other = NewFile("other");
  ASSERT_THAT(group_.Mark(other.get()), IsOk());
  const UniqueFd first_fd(::open(dir_.Join("file").c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd second_fd(::open(dir_.Join("other").c_str(), O_RDONLY | O_CLOEXEC));
  std::future<int> first = ReadFrom(first_fd);
  const int number = Next().fd;
  ASSERT_EQ(::close(number), 0);
  std::future<int> second = ReadFrom(second_fd);
  const UniqueFd fd(Next().fd);
  ASSERT_EQ(fd.get(), number);
  EXPECT_THAT(group_.Allow(number), IsOk());
  EXPECT_EQ(first.get(), 0);
  EXPECT_THAT(group_.Deny(number), IsOk());
  EXPECT_EQ(second.get(), EIO);
}

TEST_F(FanotifyGroupMountTest, DeniesAllBelowANumber) {
  std::future<int> first = Read("file", 0);
  const UniqueFd first_fd(Next().fd);
  std::future<int> second = Read("file", 0);
  const UniqueFd second_fd(Next().fd);
  EXPECT_EQ(group_.DenyAllBelow(4096), 2);
  EXPECT_EQ(first.get(), EIO);
  EXPECT_EQ(second.get(), EIO);
}

TEST_F(FanotifyGroupMountTest, TellsWhatIsMarked) {
  struct stat found {};
  ASSERT_EQ(::fstat(file_.get(), &found), 0);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto marked, group_.Marked());
  EXPECT_THAT(marked, ::testing::ElementsAre(InodeKey{found.st_dev, found.st_ino}));
}

TEST_F(FanotifyGroupMountTest, NobodyWaitsForAFileWithoutAMark) {
  const UniqueFd late(::open(dir_.Join("file").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_THAT(group_.Unmark(file_.get()), IsOk());
  char byte = 0;
  EXPECT_EQ(::pread(late.get(), &byte, 1, 0), 1);
  EXPECT_THAT(group_.Marked(), IsOk());
  EXPECT_TRUE(group_.Marked()->empty());
  EXPECT_THAT(group_.Unmark(file_.get()), IsOk());
}

TEST_F(FanotifyGroupMountTest, AMarkThatComesBackWorksForDescriptorsOfTheFirst) {
  const UniqueFd late(::open(dir_.Join("file").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_THAT(group_.Unmark(file_.get()), IsOk());
  ASSERT_THAT(group_.Mark(file_.get()), IsOk());
  std::future<int> read = ReadFrom(late);
  const UniqueFd fd(Next().fd);
  EXPECT_THAT(group_.Allow(fd.get()), IsOk());
  EXPECT_EQ(read.get(), 0);
}

TEST_F(FanotifyGroupMountTest, ASuccessorAnswersByADuplicate) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const FanotifyGroup successor,
      FanotifyGroup::Adopt(UniqueFd(::fcntl(group_.fd(), F_DUPFD_CLOEXEC, 0))));
  std::future<int> read = Read("file", 0);
  const UniqueFd fd(Next().fd);
  group_ = FanotifyGroup();
  EXPECT_THAT(successor.Allow(fd.get()), IsOk());
  EXPECT_EQ(read.get(), 0);
}

TEST_F(FanotifyGroupMountTest, AdoptsNothingElse) {
  EXPECT_THAT(FanotifyGroup::Adopt(UniqueFd(::dup(file_.get()))),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(FanotifyGroup::Adopt(UniqueFd()), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(FanotifyGroupMountTest, SaysThatTheFileSystemHasNone) {
  const UniqueFd memory(::memfd_create("file", MFD_CLOEXEC));
  EXPECT_THAT(group_.Mark(memory.get()),
              StatusIs(StatusCode::kUnimplemented, ::testing::HasSubstr("the file system")));
}

TEST_F(FanotifyGroupMountTest, TellsWhetherAFileIsOpenElsewhere) {
  EXPECT_THAT(IsOpenElsewhere(file_.get()), IsOk());
  EXPECT_FALSE(*IsOpenElsewhere(file_.get()));
  const UniqueFd duplicate(::fcntl(file_.get(), F_DUPFD_CLOEXEC, 0));
  EXPECT_FALSE(*IsOpenElsewhere(file_.get()));
  UniqueFd other(::open(dir_.Join("file").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_TRUE(*IsOpenElsewhere(file_.get()));
  other.Reset();
  EXPECT_FALSE(*IsOpenElsewhere(file_.get()));
}

TEST(FanotifyEventTest, ReadsNoneInWhatIsNone) {
  alignas(8) Buffer buffer{};
  EXPECT_FALSE(FanotifyGroup::Parse(buffer).has_value());
  fanotify_event_metadata metadata{};
  metadata.event_len = sizeof(metadata);
  metadata.metadata_len = sizeof(metadata);
  metadata.vers = FANOTIFY_METADATA_VERSION;
  metadata.fd = 9;
  std::memcpy(buffer.data(), &metadata, sizeof(metadata));
  ASSERT_TRUE(FanotifyGroup::Parse(buffer).has_value());
  EXPECT_EQ(FanotifyGroup::Parse(buffer)->bytes, 0U);
  EXPECT_FALSE(FanotifyGroup::Parse(std::span(buffer).first(20)).has_value());
  for (const uint32_t bytes : {23U, 49U}) {
    metadata.event_len = bytes;
    std::memcpy(buffer.data(), &metadata, sizeof(metadata));
    EXPECT_FALSE(FanotifyGroup::Parse(buffer).has_value()) << bytes;
  }
  metadata.event_len = 48;  // a record of no length behind it
  std::memcpy(buffer.data(), &metadata, sizeof(metadata));
  EXPECT_FALSE(FanotifyGroup::Parse(buffer).has_value());
  metadata.event_len = 24;
  metadata.vers = FANOTIFY_METADATA_VERSION + 1;
  std::memcpy(buffer.data(), &metadata, sizeof(metadata));
  EXPECT_FALSE(FanotifyGroup::Parse(buffer).has_value());
}

}  // namespace
}  // namespace strata
