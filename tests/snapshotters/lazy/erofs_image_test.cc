// SPDX-License-Identifier: Apache-2.0
//
// Images as ErofsBuilder writes them, seen by our reader, by fsck.erofs and by the kernel.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/crc32c.h"
#include "snapshotters/lazy/erofs_reader.h"
#include "snapshotters/lazy/erofs_writer.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

struct Item {
  std::string name;  // of the case
  std::string path;
  ErofsNode node;
  std::string link = {};
  std::map<std::string, std::string> xattrs = {};
};

ErofsNode File(uint64_t size, uint32_t mode = 0644) {
  return {.mode = S_IFREG | mode, .uid = 1, .gid = 2, .mtime_s = 1600000000, .size = size};
}
ErofsNode Dir(uint32_t mode = 0755) {
  return {.mode = S_IFDIR | mode};
}
ErofsNode Link() {
  return {.mode = S_IFLNK | 0777};
}

std::vector<Item> Items() {
  const std::string acl(
      "\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x04\0\x04\0\xff\xff\xff\xff"
      "\x20\0\x04\0\xff\xff\xff\xff",
      28);
  std::vector<Item> items = {
      {"EmptyFile", "f0", File(0)},
      {"OneByte", "f1", File(1)},
      {"OneBlock", "f4096", File(4096)},
      {"OneBlockAndOne", "f4097", File(4097)},
      {"Above4GiB", "huge", File((uint64_t{5} << 30) + 3)},
      {"Setuid", "suid", File(3, 06755)},
      {"Sticky", "tmp", Dir(01777)},
      {"NoPermissions", "none", File(2, 0)},
      {"BigIds", "ids", {.mode = S_IFREG | 0600, .uid = 4000000000U, .gid = 70000, .size = 5}},
      {"BeforeEpoch", "old", {.mode = S_IFREG | 0600, .mtime_s = -1, .mtime_ns = 999999999}},
      {"LongBeforeEpoch", "older", {.mode = S_IFREG, .mtime_s = -5000000000, .mtime_ns = 1}},
      {"FarFuture", "future", {.mode = S_IFREG, .mtime_s = 9000000000, .mtime_ns = 123456789}},
      {"CharDevice", "null", {.mode = S_IFCHR | 0666, .rdev = ErofsEncodeDevice(1, 3)}},
      {"BlockDevice", "sda", {.mode = S_IFBLK | 0660, .rdev = ErofsEncodeDevice(8, 0)}},
      {"BigDevice", "dev", {.mode = S_IFCHR, .rdev = ErofsEncodeDevice(4095, 1048575)}},
      {"Fifo", "fifo", {.mode = S_IFIFO | 0600}},
      {"Socket", "sock", {.mode = S_IFSOCK | 0700}},
      {"ShortLink", "l1", Link(), "x"},
      {"AbsoluteLink", "labs", Link(), "/usr/bin/env"},
      {"Link4000", "l4000", Link(), std::string(4000, 'a')},
      {"Link4032", "l4032", Link(), std::string(4032, 'b')},
      {"Link4033", "l4033", Link(), std::string(4033, 'c')},
      {"Link4095", "l4095", Link(), std::string(4095, 'd')},
      {"LinkWithXattrs", "lx", Link(), "to", {{"trusted.t", std::string(4060, 'v')}}},
      {"LongName", std::string(255, 'n'), File(1)},
      {"NewlineName", "a\nb", File(1)},
      {"HighBytes", "\xff\xfe\x80", File(1)},
      {"BeforeDot", "!first", File(1)},
      {"DashName", "-rf", File(1)},
      {"SpaceName", " ", File(1)},
      {"ThreeDots", "...", File(1)},
      {"HiddenName", ".hidden", File(1)},
      {"Utf8Name", "\xc3\xa9t\xc3\xa9", File(1)},
      {"DeepPath", "p/q/r/s/t/u/v/w/x/y/z", File(7)},
      {"EmptyDir", "empty", Dir(0700)},
      {"UserXattr", "xu", File(1), "", {{"user.a", "b"}}},
      {"EmptyXattr", "xe", File(1), "", {{"user.empty", ""}}},
      {"Capability",
       "xc",
       File(1),
       "",
       {{"security.capability",
         std::string("\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20)}}},
      {"TrustedXattr", "xt", File(1), "", {{"trusted.a", std::string("\0\1\2", 3)}}},
      {"ManyXattrs", "xm", File(1), "", {}},
      {"BlockXattr", "x4096", File(9), "", {{"user.v", std::string(4096, 'x')}}},
      {"LargestXattr", "x64k", File(9), "", {{"user.v", std::string(65535, 'x')}}},
      {"XattrsAbove64k",
       "x128k",
       File(9),
       "",
       {{"user.v", std::string(60000, 'x')}, {"user.w", std::string(60000, 'y')}}},
      {"LongXattrName", "xn", File(1), "", {{"user." + std::string(250, 'k'), "v"}}},
      {"AclAccess", "xacl", File(1), "", {{"system.posix_acl_access", acl}}},
      {"DirWithXattr", "xd", Dir(), "", {{"user.d", std::string(3000, 'd')}}},
  };
  for (Item& item : items) {
    if (item.name == "ManyXattrs") {
      for (int n = 0; n < 100; ++n) {
        item.xattrs["user.n" + std::to_string(n)] = std::string(static_cast<size_t>(n), 'z');
      }
    }
  }
  return items;
}

std::vector<XattrView> Views(const std::map<std::string, std::string>& xattrs) {
  std::vector<XattrView> views;
  for (const auto& [name, value] : xattrs) {
    views.push_back({name, value});
  }
  return views;
}

// A builder, and what came out of it.
class ErofsImage {
 public:
  explicit ErofsImage(ErofsBuilderOptions options = {})
      : builder_(*ErofsBuilder::Create(options)) {}

  StatusOr<uint32_t> Add(const std::string& path, const ErofsNode& node,
                         const std::string& link = "",
                         const std::map<std::string, std::string>& xattrs = {}) {
    return builder_->Add(path, node, link, Views(xattrs));
  }
  StatusOr<uint32_t> AddHardlink(const std::string& path, const std::string& target) {
    return builder_->AddHardlink(path, target);
  }
  Status Finish() {
    fd_ = *OpenFile(path(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    STRATA_ASSIGN_OR_RETURN(layout_, builder_->Finish(fd_.get()));
    bytes_.resize(layout_.metadata_bytes);
    EXPECT_EQ(::pread(fd_.get(), bytes_.data(), bytes_.size(), 0),
              static_cast<ssize_t>(bytes_.size()));
    STRATA_ASSIGN_OR_RETURN(ErofsReader reader, ErofsReader::Open(bytes_));
    reader_ = std::make_unique<ErofsReader>(reader);
    return OkStatus();
  }

  [[nodiscard]] uint64_t Nid(const std::string& path) const {
    uint64_t nid = reader_->root();
    size_t at = 0;
    while (at < path.size()) {
      const size_t slash = std::min(path.find('/', at), path.size());
      const auto found = reader_->Lookup(nid, std::string_view(path).substr(at, slash - at));
      if (!found.ok() || !found->has_value()) {
        return 0;
      }
      nid = (*found)->nid;
      at = slash + 1;
    }
    return nid;
  }
  [[nodiscard]] ErofsStat Stat(const std::string& path) const { return *reader_->Stat(Nid(path)); }
  [[nodiscard]] std::vector<std::string> Names(const std::string& path) const {
    std::vector<std::string> names;
    EXPECT_THAT(reader_->ReadDir(Nid(path), 0,
                                 [&](const ErofsDirectoryEntry& entry, uint64_t) {
                                   names.emplace_back(entry.name);
                                   return true;
                                 }),
                IsOk());
    return names;
  }
  [[nodiscard]] bool FsckAccepts() const {
    return std::system(("fsck.erofs " + path() + " >/dev/null 2>&1").c_str()) == 0;
  }
  [[nodiscard]] std::string path() const { return folder_.Join("image"); }
  [[nodiscard]] const ErofsReader& reader() const { return *reader_; }
  [[nodiscard]] const ErofsLayout& layout() const { return layout_; }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  TempDir folder_;
  std::unique_ptr<ErofsBuilder> builder_;
  UniqueFd fd_;
  ErofsLayout layout_;
  std::vector<uint8_t> bytes_;
  std::unique_ptr<ErofsReader> reader_;
};

bool HaveFsck() {
  return std::system("command -v fsck.erofs >/dev/null") == 0;
}

class ErofsEntryTest : public ::testing::TestWithParam<Item> {};

TEST_P(ErofsEntryTest, ComesBackAsItWent) {
  const Item& item = GetParam();
  ErofsImage image;
  STRATA_ASSERT_OK_AND_ASSIGN(const uint32_t index,
                              image.Add(item.path, item.node, item.link, item.xattrs));
  ASSERT_THAT(image.Finish(), IsOk());
  const uint64_t nid = image.Nid(item.path);
  ASSERT_EQ(nid, image.layout().nid[index]);
  STRATA_ASSERT_OK_AND_ASSIGN(const ErofsStat stat, image.reader().Stat(nid));
  EXPECT_EQ(stat.mode, item.node.mode);
  EXPECT_EQ(stat.uid, item.node.uid);
  EXPECT_EQ(stat.gid, item.node.gid);
  EXPECT_EQ(stat.mtime_s, item.node.mtime_s);
  EXPECT_EQ(stat.mtime_ns, item.node.mtime_ns);
  EXPECT_EQ(stat.rdev, item.node.rdev);
  EXPECT_EQ(stat.nlink, S_ISDIR(stat.mode) ? 2U : 1U);
  if (S_ISREG(stat.mode)) {
    EXPECT_EQ(stat.size, item.node.size);
    if (stat.size != 0) {
      EXPECT_EQ(*image.reader().DataOffset(nid), image.layout().data_offset[index]);
    }
  }
  if (S_ISLNK(stat.mode)) {
    EXPECT_EQ(*image.reader().ReadLink(nid), item.link);
  }
  std::map<std::string, std::string> xattrs;
  EXPECT_THAT(image.reader().ListXattr(nid,
                                       [&](std::string_view prefix, std::string_view rest) {
                                         const std::string name =
                                             std::string(prefix) + std::string(rest);
                                         xattrs[name] = **image.reader().GetXattr(nid, name);
                                       }),
              IsOk());
  EXPECT_EQ(xattrs, item.xattrs);
}

TEST_P(ErofsEntryTest, PassesFsck) {
  if (!HaveFsck()) {
    GTEST_SKIP() << "NO fsck.erofs: install erofs-utils (./dev deps test)";
  }
  const Item& item = GetParam();
  ErofsImage image;
  ASSERT_THAT(image.Add(item.path, item.node, item.link, item.xattrs), IsOk());
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_TRUE(image.FsckAccepts());
}

INSTANTIATE_TEST_SUITE_P(Table, ErofsEntryTest, ::testing::ValuesIn(Items()),
                         [](const auto& item) { return item.param.name; });

TEST(Crc32cTest, GivesTheCheckValueOfTheStandard) {
  const std::array<uint8_t, 9> digits = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
  EXPECT_EQ(Crc32c(digits), 0xe3069283U);
}

TEST(ErofsBuilderTest, EmptyLayerHasARoot) {
  ErofsImage image;
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_EQ(image.Stat("").mode, S_IFDIR | 0755U);
  EXPECT_THAT(image.Names(""), ::testing::ElementsAre(".", ".."));
}

TEST(ErofsBuilderTest, HardlinksShareAnInodeAcrossDirectories) {
  ErofsImage image;
  ASSERT_THAT(image.AddHardlink("b/two", "a/one"), IsOk());
  ASSERT_THAT(image.AddHardlink("c/three", "b/two"), IsOk());
  ASSERT_THAT(image.Add("a/one", File(5)), IsOk());
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_EQ(image.Nid("a/one"), image.Nid("c/three"));
  EXPECT_EQ(image.Nid("a/one"), image.Nid("b/two"));
  EXPECT_EQ(image.Stat("b/two").nlink, 3U);
}

TEST(ErofsBuilderTest, RefusesHardlinkLoops) {
  ErofsImage image;
  ASSERT_THAT(image.AddHardlink("a", "b"), IsOk());
  ASSERT_THAT(image.AddHardlink("b", "a"), IsOk());
  EXPECT_THAT(image.Finish(), StatusIs(StatusCode::kInvalidArgument));
}

TEST(ErofsBuilderTest, RefusesAHardlinkToNothing) {
  ErofsImage image;
  ASSERT_THAT(image.AddHardlink("a", "missing"), IsOk());
  EXPECT_THAT(image.Finish(), StatusIs(StatusCode::kInvalidArgument));
}

TEST(ErofsBuilderTest, RefusesAHardlinkToADirectory) {
  ErofsImage image;
  ASSERT_THAT(image.Add("d", Dir()), IsOk());
  ASSERT_THAT(image.AddHardlink("a", "d"), IsOk());
  EXPECT_THAT(image.Finish(), StatusIs(StatusCode::kInvalidArgument));
}

TEST(ErofsBuilderTest, WhiteoutIsADeviceOfNumberZero) {
  ErofsImage image;
  ASSERT_THAT(image.Add("d/.wh.gone", File(0)), IsOk());
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_EQ(image.Stat("d/gone").mode, static_cast<uint32_t>(S_IFCHR));
  EXPECT_EQ(image.Stat("d/gone").rdev, 0U);
  EXPECT_EQ(image.Nid("d/.wh.gone"), 0U);
}

TEST(ErofsBuilderTest, ARealEntryWinsOverItsWhiteout) {
  ErofsImage image;
  ASSERT_THAT(image.Add(".wh.a", File(0)), IsOk());
  ASSERT_THAT(image.Add("a", File(1)), IsOk());
  ASSERT_THAT(image.Add("b/c", File(1)), IsOk());
  ASSERT_THAT(image.Add(".wh.b", File(0)), IsOk());
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_TRUE(S_ISREG(image.Stat("a").mode));
  EXPECT_TRUE(S_ISREG(image.Stat("b/c").mode));
}

TEST(ErofsBuilderTest, OpaqueMarkBecomesAnXattr) {
  ErofsImage image;
  ASSERT_THAT(image.Add("d/.wh..wh..opq", File(0)), IsOk());
  ASSERT_THAT(image.Add("d", Dir(), "", {{"user.a", "b"}}), IsOk());
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_EQ(**image.reader().GetXattr(image.Nid("d"), "trusted.overlay.opaque"), "y");
  EXPECT_EQ(**image.reader().GetXattr(image.Nid("d"), "user.a"), "b");
  EXPECT_THAT(image.Names("d"), ::testing::ElementsAre(".", ".."));
}

TEST(ErofsBuilderTest, OpaqueMarkForUserxattrOverlays) {
  ErofsImage image({.whiteouts = ErofsWhiteouts::kOverlayUserXattr});
  ASSERT_THAT(image.Add("d/.wh..wh..opq", File(0)), IsOk());
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_EQ(**image.reader().GetXattr(image.Nid("d"), "user.overlay.opaque"), "y");
}

TEST(ErofsBuilderTest, DropsOverlayXattrsOfTheLayer) {
  ErofsImage image;
  ASSERT_THAT(image.Add("d", Dir(), "", {{"trusted.overlay.redirect", "/etc"}}), IsOk());
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_FALSE(image.reader().GetXattr(image.Nid("d"), "trusted.overlay.redirect")->has_value());
}

TEST(ErofsBuilderTest, LeavesLandmarksOutOfTheRootOnly) {
  ErofsImage image;
  EXPECT_EQ(*image.Add(".prefetch.landmark", File(1)), ErofsBuilder::kLeftOut);
  EXPECT_EQ(*image.Add(".no.prefetch.landmark", File(1)), ErofsBuilder::kLeftOut);
  ASSERT_THAT(image.Add("d/.prefetch.landmark", File(1)), IsOk());
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_THAT(image.Names(""), ::testing::ElementsAre(".", "..", "d"));
  EXPECT_NE(image.Nid("d/.prefetch.landmark"), 0U);
}

TEST(ErofsBuilderTest, LastEntryOfAPathWins) {
  ErofsImage image;
  STRATA_ASSERT_OK_AND_ASSIGN(const uint32_t first, image.Add("a", File(10)));
  ASSERT_THAT(image.Add("d/child", File(1)), IsOk());
  ASSERT_THAT(image.Add("a", Link(), "d"), IsOk());
  ASSERT_THAT(image.Add("d", Dir(0700)), IsOk());
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_EQ(*image.reader().ReadLink(image.Nid("a")), "d");
  EXPECT_EQ(image.Stat("d").mode, S_IFDIR | 0700U);
  EXPECT_NE(image.Nid("d/child"), 0U);
  EXPECT_EQ(image.layout().data_offset[first], ErofsLayout::kNoData);
}

TEST(ErofsBuilderTest, AFileOverADirectoryDropsItsChildren) {
  ErofsImage image;
  STRATA_ASSERT_OK_AND_ASSIGN(const uint32_t child, image.Add("d/child", File(1)));
  ASSERT_THAT(image.Add("d", File(1)), IsOk());
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_EQ(image.layout().nid[child], 0U);
  EXPECT_EQ(image.layout().data_offset[child], ErofsLayout::kNoData);
}

TEST(ErofsBuilderTest, DataLiesInTheOrderOfAdd) {
  ErofsImage image;
  STRATA_ASSERT_OK_AND_ASSIGN(const uint32_t z, image.Add("z", File(5000)));
  STRATA_ASSERT_OK_AND_ASSIGN(const uint32_t a, image.Add("a", File(1)));
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_EQ(image.layout().data_offset[z], image.layout().metadata_bytes);
  EXPECT_EQ(image.layout().data_offset[a], image.layout().metadata_bytes + 8192);
  EXPECT_EQ(image.layout().image_bytes, image.layout().metadata_bytes + 12288);
}

TEST(ErofsBuilderTest, CountsSubdirectoriesAsLinks) {
  ErofsImage image;
  ASSERT_THAT(image.Add("a/b/c", Dir()), IsOk());
  ASSERT_THAT(image.Add("a/d", Dir()), IsOk());
  ASSERT_THAT(image.Finish(), IsOk());
  EXPECT_EQ(image.Stat("").nlink, 3U);
  EXPECT_EQ(image.Stat("a").nlink, 4U);
}

TEST(ErofsBuilderTest, RefusesPathsThatAreNotClean) {
  ErofsImage image;
  for (const char* path : {"/a", "a/", "a//b", "./a", "a/../b", "..", "a/.wh."}) {
    EXPECT_THAT(image.Add(path, File(1)), StatusIs(StatusCode::kInvalidArgument)) << path;
  }
  EXPECT_THAT(image.Add(std::string(256, 'n'), File(1)), StatusIs(StatusCode::kInvalidArgument));
}

TEST(ErofsBuilderTest, RefusesXattrsItCannotKeep) {
  ErofsImage image;
  EXPECT_THAT(image.Add("a", File(1), "", {{"user.v", std::string(65536, 'v')}}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(image.Add("a", File(1), "", {{"system.other", "v"}}),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(ErofsBuilderTest, DirectoryOf100000Entries) {
  ErofsImage image;
  for (int n = 0; n < 100000; ++n) {
    ASSERT_THAT(image.Add("d/entry" + std::to_string(n * 7919 % 100000), File(0)), IsOk());
  }
  ASSERT_THAT(image.Finish(), IsOk());
  for (int n = 0; n < 100000; n += 37) {
    ASSERT_NE(image.Nid("d/entry" + std::to_string(n)), 0U) << n;
  }
  EXPECT_EQ(image.Nid("d/entry"), 0U);
  EXPECT_EQ(image.Nid("d/zzz"), 0U);
  EXPECT_EQ(image.Names("d").size(), 100002U);
  EXPECT_TRUE(!HaveFsck() || image.FsckAccepts());
}

TEST(ErofsReaderTest, RefusesAChangedSuperblock) {
  ErofsImage image;
  ASSERT_THAT(image.Finish(), IsOk());
  std::vector<uint8_t> bytes(4096);
  ASSERT_EQ(::pread(image.fd(), bytes.data(), bytes.size(), 0), 4096);
  bytes[2000] ^= 1;
  EXPECT_THAT(ErofsReader::Open(bytes), StatusIs(StatusCode::kDataLoss));
}

// --- the kernel's view ---------------------------------------------------------------------------

class ErofsMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT ROOT: the kernel's view of our images is not tested";
    }
  }
};

class ErofsMount {
 public:
  // mount(2) itself: mount(8) would put a loop device in between.
  explicit ErofsMount(const std::string& image) {
    error_ = ::mount(image.c_str(), folder_.path().c_str(), "erofs", MS_RDONLY, nullptr) == 0
                 ? 0
                 : errno;
  }
  ~ErofsMount() {
    if (error_ == 0) {
      ::umount2(folder_.path().c_str(), MNT_DETACH);
    }
  }
  ErofsMount(const ErofsMount&) = delete;
  ErofsMount& operator=(const ErofsMount&) = delete;
  [[nodiscard]] int error() const { return error_; }
  [[nodiscard]] std::string Join(const std::string& name) const { return folder_.Join(name); }

 private:
  TempDir folder_;
  int error_ = 0;
};

void ExpectSeen(const ErofsMount& mount, const Item& item) {
  SCOPED_TRACE(item.name);
  const std::string path = mount.Join(item.path);
  struct stat seen = {};
  ASSERT_EQ(::lstat(path.c_str(), &seen), 0);
  EXPECT_EQ(seen.st_mode, item.node.mode);
  EXPECT_EQ(seen.st_uid, item.node.uid);
  EXPECT_EQ(seen.st_gid, item.node.gid);
  EXPECT_EQ(seen.st_mtim.tv_sec, item.node.mtime_s);
  EXPECT_EQ(seen.st_mtim.tv_nsec, static_cast<int64_t>(item.node.mtime_ns));
  EXPECT_EQ(ErofsEncodeDevice(gnu_dev_major(seen.st_rdev), gnu_dev_minor(seen.st_rdev)),
            item.node.rdev);
  if (S_ISREG(seen.st_mode)) {
    EXPECT_EQ(static_cast<uint64_t>(seen.st_size), item.node.size);
  }
  if (S_ISLNK(seen.st_mode)) {
    std::string target(5000, '\0');
    const ssize_t bytes = ::readlink(path.c_str(), target.data(), target.size());
    ASSERT_GT(bytes, 0);
    target.resize(static_cast<size_t>(bytes));
    EXPECT_EQ(target, item.link);
  }
  for (const auto& [name, value] : item.xattrs) {
    std::string got(70000, '\0');
    const ssize_t bytes = ::lgetxattr(path.c_str(), name.c_str(), got.data(), 65536);
    ASSERT_GE(bytes, 0) << name.substr(0, 40) << ": " << errno;
    got.resize(static_cast<size_t>(bytes));
    EXPECT_TRUE(got == value) << name.substr(0, 40);
  }
}

TEST_F(ErofsMountTest, KernelSeesEveryEntryOfTheTable) {
  ErofsImage image;
  std::vector<std::pair<Item, uint32_t>> added;
  for (const Item& item : Items()) {
    STRATA_ASSERT_OK_AND_ASSIGN(const uint32_t index,
                                image.Add(item.path, item.node, item.link, item.xattrs));
    added.emplace_back(item, index);
  }
  ASSERT_THAT(image.Finish(), IsOk());
  for (const auto& [item, index] : added) {
    const uint64_t offset = image.layout().data_offset[index];
    if (offset != ErofsLayout::kNoData) {
      ASSERT_EQ(::pwrite(image.fd(), item.name.data(), std::min(item.name.size(), item.node.size),
                         static_cast<off_t>(offset)),
                static_cast<ssize_t>(std::min(item.name.size(), item.node.size)));
    }
  }
  const ErofsMount mount(image.path());
  ASSERT_EQ(mount.error(), 0);
  for (const auto& [item, index] : added) {
    ExpectSeen(mount, item);
    if (image.layout().data_offset[index] != ErofsLayout::kNoData) {
      STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd file, OpenFile(mount.Join(item.path), O_RDONLY));
      const size_t bytes = std::min(item.name.size(), item.node.size);
      std::string data(bytes, '\0');
      ASSERT_EQ(::pread(file.get(), data.data(), bytes, 0), static_cast<ssize_t>(bytes));
      EXPECT_EQ(data, item.name.substr(0, bytes));
    }
  }
}

}  // namespace
}  // namespace strata
