// SPDX-License-Identifier: Apache-2.0
//
// A layer as the kernel shows it through FUSE, on real mounts.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/snapshotters/lazy/fuse_fixture.h"

namespace strata {
namespace {

using testing::Dir;
using testing::Eventually;
using testing::File;
using testing::FuseMountFixture;
using testing::Link;
using testing::NamesIn;
using testing::NidOf;
using testing::PatternEntry;
using testing::PatternFile;
using testing::PatternFiller;
using testing::ReadAt;
using testing::ReadLinkOf;
using testing::Requests;
using testing::StatOf;
using ::testing::UnorderedElementsAre;

class FuseTreeMountTest : public FuseMountFixture {};

// --- the tree

TEST_F(FuseTreeMountTest, ShowsAttributesAsTheyWereStored) {
  const std::string root = Show({
      {.name = "f", .size = 5000, .mode = 06751, .uid = 4000000000U, .gid = 70000},
      {.name = "d", .type = "dir", .mode = 01777, .gid = 12},
      {.name = "old", .mtime = "1969-12-31T23:59:58.25Z"},
      {.name = "null", .type = "char", .mode = 0666, .major = 1, .minor = 3},
      {.name = "sda", .type = "block", .mode = 0660, .major = 4095, .minor = 1048575},
      {.name = "pipe", .type = "fifo", .mode = 0600},
      {.name = "link", .type = "symlink", .mode = 0777, .link = "to"},
  });

  const struct stat file = StatOf(root + "/f");
  EXPECT_EQ(file.st_mode, S_IFREG | 06751U);
  EXPECT_EQ(file.st_uid, 4000000000U);
  EXPECT_EQ(file.st_gid, 70000U);
  EXPECT_EQ(file.st_size, 5000);
  EXPECT_EQ(file.st_blocks, 16);
  EXPECT_EQ(file.st_mtim.tv_sec, 1600000000);
  EXPECT_EQ(StatOf(root + "/d").st_mode, S_IFDIR | 01777U);
  EXPECT_EQ(StatOf(root + "/old").st_mtim.tv_sec, -2);
  EXPECT_EQ(StatOf(root + "/old").st_mtim.tv_nsec, 250000000);
  EXPECT_EQ(StatOf(root + "/null").st_mode, S_IFCHR | 0666U);
  EXPECT_EQ(StatOf(root + "/null").st_rdev, ::makedev(1, 3));
  EXPECT_EQ(StatOf(root + "/sda").st_mode, S_IFBLK | 0660U);
  EXPECT_EQ(StatOf(root + "/sda").st_rdev, ::makedev(4095, 1048575));
  EXPECT_EQ(StatOf(root + "/pipe").st_mode, S_IFIFO | 0600U);
  EXPECT_EQ(StatOf(root + "/link").st_mode, S_IFLNK | 0777U);
  EXPECT_EQ(StatOf(root + "/link").st_size, 2);
}

TEST_F(FuseTreeMountTest, NumbersInodesByLayerAndPlace) {
  const auto layer = Make({File("a/b")});
  const std::string root = Show(layer);
  EXPECT_EQ(StatOf(root + "/a/b").st_ino, 7ULL << 40 | NidOf(layer->image(), "a/b"));
}

TEST_F(FuseTreeMountTest, HardlinksAreOneInode) {
  const std::string root =
      Show({File("d/a"), {.name = "b", .type = "hardlink", .link = "d/a"}, Dir("e")});
  EXPECT_EQ(StatOf(root + "/d/a").st_ino, StatOf(root + "/b").st_ino);
  EXPECT_EQ(StatOf(root + "/b").st_nlink, 2U);
}

TEST_F(FuseTreeMountTest, ReadsLongLinksAndNames) {
  const std::string target(4095, 't');
  const std::string name(255, 'n');
  const std::string root = Show({Link("l", target), File(name, 3)});
  EXPECT_EQ(ReadLinkOf(root + "/l"), target);
  EXPECT_EQ(StatOf(root + "/" + name).st_size, 3);
  struct stat attributes {};
  EXPECT_EQ(::lstat((root + "/" + std::string(256, 'n')).c_str(), &attributes), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
}

TEST_F(FuseTreeMountTest, ListsLargeDirectoriesWhole) {
  std::vector<PatternEntry> entries;
  std::set<std::string> names = {".", ".."};
  for (int i = 0; i < 20000; ++i) {
    const std::string name =
        "name-" + std::to_string(i) + std::string(static_cast<size_t>(i % 200), 'x');
    entries.push_back(File("d/" + name, 0));
    names.insert(name);
  }
  const std::string root = Show(entries);
  for (const char* round : {"from the daemon", "from the kernel"}) {
    const std::vector<std::string> seen = NamesIn(root + "/d");
    EXPECT_EQ(seen.size(), names.size()) << round;
    EXPECT_TRUE(std::set<std::string>(seen.begin(), seen.end()) == names) << round;
  }
}

TEST_F(FuseTreeMountTest, IsReadOnly) {
  const std::string root = Show({File("f")});
  EXPECT_EQ(::open((root + "/f").c_str(), O_WRONLY | O_CLOEXEC), -1);
  EXPECT_EQ(errno, EROFS);
}

TEST_F(FuseTreeMountTest, LetsOtherUsersInAsModesSay) {
  ASSERT_EQ(::chmod(dir_.path().c_str(), 0755), 0);
  const std::string root =
      Show({{.name = "open", .size = 3}, {.name = "shut", .size = 3, .mode = 0600}});
  ASSERT_EQ(::chmod(root.c_str(), 0755), -1);  // the mount's own root is what it is: 0755
  const pid_t child = ::fork();
  if (child == 0) {
    const bool dropped = ::setgid(12345) == 0 && ::setuid(12345) == 0;
    const bool open = ::open((root + "/open").c_str(), O_RDONLY | O_CLOEXEC) >= 0;
    const bool shut = ::open((root + "/shut").c_str(), O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES;
    ::_exit(dropped && open && shut ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(FuseTreeMountTest, StatFsSpeaksOfTheLayer) {
  const auto layer = Make({File("f", 100000)});
  const std::string root = Show(layer);
  struct statvfs space {};
  ASSERT_EQ(::statvfs((root + "/f").c_str(), &space), 0);
  EXPECT_EQ(space.f_bsize, 4096U);
  EXPECT_EQ(space.f_blocks * 4096, layer->image().tree().image_bytes());
  EXPECT_EQ(space.f_bfree, 0U);
  EXPECT_EQ(space.f_files, 2U);
  EXPECT_EQ(space.f_namemax, 255U);
}

// --- xattrs

TEST_F(FuseTreeMountTest, ShowsXattrs) {
  const std::string large(65535, 'v');
  const std::string root = Show({{.name = "f",
                                  .xattrs = {{"user.a", "value"},
                                             {"user.empty", ""},
                                             {"trusted.large", large},
                                             {"security.x", std::string("\0\1", 2)}}},
                                 File("none")});
  const std::string path = root + "/f";
  std::string buffer(70000, '?');
  EXPECT_EQ(::lgetxattr(path.c_str(), "user.a", nullptr, 0), 5);
  EXPECT_EQ(::lgetxattr(path.c_str(), "user.a", buffer.data(), buffer.size()), 5);
  EXPECT_EQ(buffer.substr(0, 5), "value");
  EXPECT_EQ(::lgetxattr(path.c_str(), "user.a", buffer.data(), 4), -1);
  EXPECT_EQ(errno, ERANGE);
  EXPECT_EQ(::lgetxattr(path.c_str(), "user.empty", buffer.data(), buffer.size()), 0);
  ASSERT_EQ(::lgetxattr(path.c_str(), "trusted.large", buffer.data(), buffer.size()), 65535);
  EXPECT_TRUE(buffer.substr(0, 65535) == large);
  EXPECT_EQ(::lgetxattr(path.c_str(), "security.x", buffer.data(), buffer.size()), 2);
  EXPECT_EQ(::lgetxattr(path.c_str(), "user.b", buffer.data(), buffer.size()), -1);
  EXPECT_EQ(errno, ENODATA);
  EXPECT_EQ(::llistxattr((root + "/none").c_str(), buffer.data(), buffer.size()), 0);

  const ssize_t bytes = ::llistxattr(path.c_str(), nullptr, 0);
  ASSERT_EQ(::llistxattr(path.c_str(), buffer.data(), buffer.size()), bytes);
  std::vector<std::string> names;
  for (size_t at = 0; at < static_cast<size_t>(bytes); at += names.back().size() + 1) {
    names.emplace_back(buffer.data() + at);
  }
  EXPECT_THAT(names, UnorderedElementsAre("user.a", "user.empty", "trusted.large", "security.x"));
  EXPECT_EQ(::llistxattr(path.c_str(), buffer.data(), 3), -1);
  EXPECT_EQ(errno, ERANGE);
}

TEST_F(FuseTreeMountTest, LayersWithAndWithoutXattrsLiveOnTwoMounts) {
  const std::string with = Show({{.name = "f", .xattrs = {{"user.a", "b"}}}});
  const std::string without = Show({File("f")});
  EXPECT_NE(StatOf(with).st_dev, StatOf(without).st_dev);
  EXPECT_EQ(::lgetxattr((without + "/f").c_str(), "user.a", nullptr, 0), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(::lgetxattr((with + "/f").c_str(), "user.a", nullptr, 0), 1);
}

// --- contents

struct Span {
  uint64_t offset;
  size_t bytes;
};

TEST_F(FuseTreeMountTest, ReadsAnyPartOfAFile) {
  const auto layer = Make({File("a", 5), File("f", 3'000'123), File("z", 4096)});
  const std::string root = Show(layer);
  const std::string content = PatternFile(layer->image(), "f");
  for (const Span& span : std::vector<Span>{{0, 1},
                                            {4095, 2},
                                            {4096, 4096},
                                            {123456, 1},
                                            {1048575, 1048578},
                                            {2999999, 124},
                                            {3000122, 1},
                                            {3000122, 100},
                                            {3000123, 10},
                                            {9000000, 10},
                                            {0, 4'000'000}}) {
    EXPECT_TRUE(ReadAt(root + "/f", span.offset, span.bytes) ==
                content.substr(std::min<uint64_t>(span.offset, content.size()), span.bytes))
        << span.offset << " " << span.bytes;
  }
  EXPECT_EQ(ReadAt(root + "/a", 0, 100), PatternFile(layer->image(), "a"));
  EXPECT_EQ(ReadAt(root + "/z", 0, 5000), PatternFile(layer->image(), "z"));
  EXPECT_EQ(presenter_->counters().errors, 0U);
}

TEST_F(FuseTreeMountTest, ReadsPastThePageCache) {
  const auto layer = Make({File("f", 1'000'000)});
  const std::string root = Show(layer);
  const UniqueFd fd(::open((root + "/f").c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  ASSERT_TRUE(fd.valid());
  void* buffer = nullptr;
  ASSERT_EQ(::posix_memalign(&buffer, 4096, 1 << 20), 0);
  const ssize_t bytes = ::pread(fd.get(), buffer, 1 << 20, 4096);
  EXPECT_EQ(bytes, 1'000'000 - 4096);
  EXPECT_TRUE(
      std::string(static_cast<char*>(buffer), static_cast<size_t>(std::max<ssize_t>(bytes, 0))) ==
      PatternFile(layer->image(), "f").substr(4096));
  std::free(buffer);
}

TEST_F(FuseTreeMountTest, MapsFiles) {
  const auto layer = Make({File("f", 300'001)});
  const std::string root = Show(layer);
  const UniqueFd fd(::open((root + "/f").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(fd.valid());
  void* map = ::mmap(nullptr, 300'001, PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(map, MAP_FAILED);
  EXPECT_TRUE(std::string(static_cast<char*>(map), 300'001) == PatternFile(layer->image(), "f"));
  // The rest of the last page is no part of the file.
  EXPECT_EQ(static_cast<char*>(map)[300'001], '\0');
  (void)::munmap(map, 300'001);
}

TEST_F(FuseTreeMountTest, ManyReadersOfWhatIsFilledLaterGetRightBytes) {
  constexpr size_t kBytes = 2'000'003;
  std::vector<PatternEntry> entries;
  for (int i = 0; i < 4; ++i) {
    entries.push_back(File("f" + std::to_string(i), kBytes));
  }
  const auto layer = Make(entries);
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kLater);

  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (unsigned reader = 0; reader < 8; ++reader) {
    readers.emplace_back([&, reader] {
      const std::string name = "f" + std::to_string(reader % 4);
      const std::string content = PatternFile(layer->image(), name);
      for (uint64_t step = 0; step < 60; ++step) {
        const uint64_t offset = (step * 7919 * (reader + 3) * 101) % kBytes;
        const size_t bytes = 1 + (step * 3571) % 200'000;
        wrong += ReadAt(root + "/" + name, offset, bytes) == content.substr(offset, bytes) ? 0 : 1;
      }
    });
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(presenter_->counters().errors, 0U);
}

TEST_F(FuseTreeMountTest, AReadThatWaitsHoldsUpNobody) {
  const auto layer = Make({File("slow", 4096), File("quick", 4096), Dir("d")});
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kNever);
  std::vector<std::thread> readers;
  // More than the session has threads.
  for (uint64_t i = 0; i < 6; ++i) {
    readers.emplace_back([&] { (void)ReadAt(root + "/slow", 0, 4096); });
  }
  EXPECT_TRUE(Eventually([&] { return filler_.kept() > 0; }));

  filler_.SetMode(PatternFiller::Mode::kAtOnce);
  EXPECT_EQ(ReadAt(root + "/quick", 0, 4096), PatternFile(layer->image(), "quick"));
  EXPECT_EQ(NamesIn(root + "/d").size(), 2U);

  filler_.CallBack(MakeStatus(StatusCode::kUnavailable, "gone"));
  for (std::thread& reader : readers) {
    reader.join();
  }
}

TEST_F(FuseTreeMountTest, AReaderThatWaitsCanBeKilled) {
  const std::string root = Show({File("f", 4096)});
  filler_.SetMode(PatternFiller::Mode::kNever);
  const pid_t child = ::fork();
  if (child == 0) {
    (void)ReadAt(root + "/f", 0, 100);
    ::_exit(0);
  }
  EXPECT_TRUE(Eventually([&] { return filler_.kept() > 0; }));
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  int status = 0;
  EXPECT_TRUE(Eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; }));
  EXPECT_TRUE(WIFSIGNALED(status));
  filler_.CallBack(OkStatus());
}

TEST_F(FuseTreeMountTest, FailedReadsAreEioAndMayBeTriedAgain) {
  const auto layer = Make({File("f", 50'000)});
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kFail);
  int error = 0;
  EXPECT_EQ(ReadAt(root + "/f", 0, 100, &error), "");
  EXPECT_EQ(error, EIO);
  EXPECT_GE(presenter_->counters().errors, 1U);

  filler_.SetMode(PatternFiller::Mode::kAtOnce);
  EXPECT_TRUE(ReadAt(root + "/f", 0, 50'000, &error) == PatternFile(layer->image(), "f"));
  EXPECT_EQ(error, 0);
}

TEST_F(FuseTreeMountTest, ServesBytesThatAreNotOnDisk) {
  const auto layer = Make({File("f", 300'000)});
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kHeld);
  EXPECT_TRUE(ReadAt(root + "/f", 0, 400'000) == PatternFile(layer->image(), "f"));
}

TEST_F(FuseTreeMountTest, ATruncatedImageIsAnErrorAndNeverZeros) {
  const auto layer = Make({File("f", 300'000)});
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kHeld);  // until here nothing is written
  EXPECT_EQ(ReadAt(root + "/f", 0, 1).size(), 1U);
  filler_.SetMode(PatternFiller::Mode::kNever);
  ASSERT_EQ(::ftruncate(layer->image().image_fd(),
                        static_cast<off_t>(layer->image().metadata_bytes() + 8192)),
            0);
  ASSERT_EQ(::posix_fadvise(UniqueFd(::open((root + "/f").c_str(), O_RDONLY | O_CLOEXEC)).get(), 0,
                            0, POSIX_FADV_DONTNEED),
            0);
  int error = 0;
  std::thread reader([&] { (void)ReadAt(root + "/f", 0, 300'000, &error); });
  std::atomic<bool> ended{false};
  std::thread answers([&] {
    while (!ended) {
      filler_.CallBack(OkStatus());  // "all is there"
    }
  });
  reader.join();
  ended = true;
  answers.join();
  EXPECT_EQ(error, EIO);
}

TEST_F(FuseTreeMountTest, AnInodeThatMakesNoSenseFailsByItself) {
  const auto layer = Make({File("bad"), File("good")});
  const std::string zeros(64, '\0');
  ASSERT_EQ(::pwrite(layer->image().image_fd(), zeros.data(), zeros.size(),
                     static_cast<off_t>(NidOf(layer->image(), "bad") * 32)),
            64);
  const std::string root = Show(layer);
  EXPECT_THAT(NamesIn(root), UnorderedElementsAre(".", "..", "bad", "good"));
  struct stat attributes {};
  EXPECT_EQ(::lstat((root + "/bad").c_str(), &attributes), -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_EQ(StatOf(root + "/good").st_size, 10);
  EXPECT_GE(presenter_->counters().errors, 1U);
}

// --- what stays in the kernel

TEST_F(FuseTreeMountTest, RepeatedQuestionsStayInTheKernel) {
  const auto layer =
      Make({File("d/f", 500'000), Link("l", "target"), {.name = "x", .xattrs = {{"user.a", "b"}}}});
  const std::string root = Show(layer);
  const auto ask = [&] {
    struct stat attributes {};
    (void)::lstat((root + "/d/f").c_str(), &attributes);
    EXPECT_EQ(::lstat((root + "/d/none").c_str(), &attributes), -1);
    EXPECT_EQ(ReadLinkOf(root + "/l"), "target");
    EXPECT_EQ(NamesIn(root + "/d").size(), 3U);
    EXPECT_EQ(NamesIn(root).size(), 5U);
    EXPECT_EQ(ReadAt(root + "/d/f", 0, 600'000).size(), 500'000U);
  };
  ask();
  const uint64_t before = Requests(presenter_->counters());
  ask();
  EXPECT_EQ(Requests(presenter_->counters()) - before, 0U);
}

TEST_F(FuseTreeMountTest, OnThePlainMountXattrsAreTheKernels) {
  const std::string root = Show({File("a"), File("b")});
  (void)StatOf(root + "/a");
  (void)StatOf(root + "/b");
  EXPECT_EQ(::lgetxattr((root + "/a").c_str(), "user.a", nullptr, 0), -1);
  (void)::llistxattr((root + "/a").c_str(), nullptr, 0);
  const uint64_t before = Requests(presenter_->counters());
  EXPECT_EQ(::lgetxattr((root + "/b").c_str(), "security.capability", nullptr, 0), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  (void)::llistxattr((root + "/b").c_str(), nullptr, 0);
  EXPECT_EQ(Requests(presenter_->counters()) - before, 0U);
}

TEST_F(FuseTreeMountTest, ListingsBringTheAttributesAlong) {
  std::vector<PatternEntry> entries;
  for (int i = 0; i < 500; ++i) {
    entries.push_back(File("d/f" + std::to_string(i)));
  }
  const std::string root = Show(entries);
  const std::vector<std::string> names = NamesIn(root + "/d");
  const FuseCounters before = presenter_->counters();
  for (const std::string& name : names) {
    (void)StatOf(root + "/d/" + name);
  }
  EXPECT_EQ(presenter_->counters().lookups, before.lookups);
  EXPECT_EQ(presenter_->counters().getattrs, before.getattrs);
}

TEST_F(FuseTreeMountTest, ReadsAheadInLargeRequests) {
  const auto layer = Make({File("f", 8 << 20)});
  const std::string root = Show(layer);
  EXPECT_EQ(ReadAt(root + "/f", 0, 8 << 20).size(), size_t{8} << 20);
  EXPECT_LE(presenter_->counters().reads, 16U);
}

}  // namespace
}  // namespace strata
