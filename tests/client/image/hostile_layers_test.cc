// SPDX-License-Identifier: Apache-2.0
//
// Layers that want what they must not get: each case is applied to a directory whose neighbours are
// watched, and has its error or its documented result. Needs root for owners and device nodes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "client/image/layer_apply.h"
#include "snapshotters/base/file_at.h"
#include "tests/support/status_matchers.h"
#include "tests/support/tar_builder.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TarBuilder;
using testing::TarEntry;
using testing::TempDir;

constexpr const char* kSecret = "outside";

std::string ReadText(const fs::path& path) {
  auto fd = OpenFile(path.string(), O_RDONLY | O_NOFOLLOW);
  if (!fd.ok()) {
    return "(" + std::string(StatusMessage(fd.status())) + ")";
  }
  return ReadAll(fd->get(), path.string(), 1 << 20).value_or("(unreadable)");
}

void WriteText(const fs::path& path, const std::string& text) {
  auto fd = OpenFile(path.string(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  ASSERT_THAT(fd, IsOk());
  ASSERT_THAT(WriteAll(fd->get(), text, path.string()), IsOk());
}

struct stat StatOf(const fs::path& path) {
  struct stat found {};
  EXPECT_EQ(::lstat(path.c_str(), &found), 0) << path;
  return found;
}

bool Exists(const fs::path& path) {
  struct stat found {};
  return ::lstat(path.c_str(), &found) == 0;
}

struct HostileCase {
  std::string name;
  std::string tar;
  // OK: applied, and `check` sees the documented result.
  StatusCode code = StatusCode::kDataLoss;
  std::string message;
  std::function<void(const fs::path& root)> check = nullptr;
  // What is there before; in the upper folder of an overlay: below.
  std::function<void(const fs::path& root)> before = nullptr;
  std::function<void(ApplyOptions&)> options = nullptr;
};

void PrintTo(const HostileCase& hostile, std::ostream* out) {
  *out << hostile.name;
}

class HostileLayer : public ::testing::TestWithParam<HostileCase> {
 protected:
  // Everything beside the directory, by name, content, mode and time of change.
  std::string Outside() {
    std::string seen;
    for (const auto& entry : fs::recursive_directory_iterator(top_.Join("outside"))) {
      const struct stat found = StatOf(entry.path());
      seen += entry.path().string() + " " + std::to_string(found.st_mode) + " " +
              std::to_string(found.st_uid) + " " + std::to_string(found.st_nlink) + " " +
              std::to_string(found.st_ctim.tv_sec) + "." + std::to_string(found.st_ctim.tv_nsec) +
              "\n";
    }
    for (const auto& entry : fs::directory_iterator(top_.path())) {
      seen += entry.path().string() + "\n";
    }
    return seen;
  }

  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root: owners and device nodes";
    }
    fs::create_directories(top_.Join("outside/directory"));
    WriteText(top_.Join("outside/file"), kSecret);
    WriteText(top_.Join("outside/directory/file"), kSecret);
    fs::create_directories(root());
  }

  [[nodiscard]] fs::path root() const { return top_.Join("root"); }

  StatusOr<Applied> Apply(const HostileCase& hostile, const fs::path& directory,
                          ApplyOptions options) {
    if (hostile.options) {
      hostile.options(options);
    }
    auto fd = OpenFile(directory.string(), O_RDONLY | O_DIRECTORY);
    if (!fd.ok()) {
      return fd.status();
    }
    size_t at = 0;
    const TarSource source = [&](char* buffer, size_t size) -> StatusOr<size_t> {
      const size_t count = hostile.tar.copy(buffer, size, at);
      at += count;
      return count;
    };
    const CallContext call;
    return ApplyLayer(call, source, fd->get(), options);
  }

  static void Judge(const HostileCase& hostile, const StatusOr<Applied>& applied,
                    const fs::path& directory) {
    if (hostile.code == StatusCode::kOk) {
      ASSERT_THAT(applied, IsOk());
      ASSERT_TRUE(hostile.check);
      hostile.check(directory);
    } else {
      EXPECT_THAT(applied, StatusIs(hostile.code, HasSubstr(hostile.message)));
    }
  }

  TempDir top_;
};

TEST_P(HostileLayer, StaysInsideAndSaysWhatIsWrong) {
  const HostileCase& hostile = GetParam();
  if (hostile.before) {
    hostile.before(root());
  }
  const std::string outside = Outside();
  const StatusOr<Applied> applied = Apply(hostile, root(), {});
  EXPECT_EQ(Outside(), outside);
  EXPECT_EQ(ReadText(top_.Join("outside/file")), kSecret);
  Judge(hostile, applied, root());
}

// The same in the upper folder of an overlay, with what was there before below it. Nothing below
// changes.
TEST_P(HostileLayer, StaysInsideAnOverlaysUpperFolder) {
  const HostileCase& hostile = GetParam();
  const fs::path upper = top_.Join("upper");
  fs::create_directories(upper);
  if (hostile.before) {
    hostile.before(root());
  }
  const std::string outside = Outside();
  ApplyOptions options;
  options.overlay_upper = true;
  options.open_lower = [this] { return OpenFile(root().string(), O_RDONLY | O_DIRECTORY); };
  const StatusOr<Applied> applied = Apply(hostile, upper, options);
  EXPECT_EQ(Outside(), outside);
  if (hostile.code == StatusCode::kOk) {
    EXPECT_THAT(applied, IsOk());
  } else {
    EXPECT_THAT(applied, StatusIs(hostile.code, HasSubstr(hostile.message)));
  }
}

std::string Repeat(const std::string& text, size_t count) {
  std::string all;
  for (size_t i = 0; i < count; ++i) {
    all += text;
  }
  return all;
}

// A GNU sparse file (tar(5)): `map` is the whole sparse map, in octal pairs of offset and size.
std::string GnuSparse(const std::vector<std::pair<std::string, std::string>>& map,
                      const std::string& real_size, const std::string& content) {
  TarBuilder builder;
  builder.Add({.name = "sparse", .type = 'S', .content = content});
  std::string bytes = builder.bytes();
  bytes.replace(257, 8, "ustar  \0", 8);
  size_t at = 386;
  for (const auto& [offset, size] : map) {
    bytes.replace(at, offset.size(), offset);
    bytes.replace(at + 12, size.size(), size);
    at += 24;
  }
  bytes.replace(483, real_size.size(), real_size);
  bytes.replace(148, 8, "        ");
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) {
    sum += static_cast<unsigned char>(bytes[i]);
  }
  char text[8];
  (void)std::snprintf(text, sizeof(text), "%06o", sum);
  bytes.replace(148, 7, text, 7);
  return bytes + std::string(1024, '\0');
}

void Directory(const fs::path& path) {
  fs::create_directories(path);
}

std::vector<HostileCase> Names() {
  return {
      {.name = "AbsoluteNameIsInside",
       .tar = TarBuilder().File("/etc/passwd", "x").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "etc/passwd"), "x"); }},
      {.name = "AbsoluteNameWithManySlashesIsInside",
       .tar = TarBuilder().File("////a", "x").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "a"), "x"); }},
      {.name = "UpwardName",
       .tar = TarBuilder().File("../outside/file", "x").Finish(),
       .message = "leads upward"},
      {.name = "UpwardNameInTheMiddle",
       .tar = TarBuilder().Directory("a").File("a/../../outside/file", "x").Finish(),
       .message = "leads upward"},
      {.name = "UpwardNameThatStaysInside",
       .tar = TarBuilder().Directory("a").File("a/../b", "x").Finish(),
       .message = "leads upward"},
      {.name = "UpwardDirectory",
       .tar = TarBuilder().Directory("..").Finish(),
       .message = "leads upward"},
      {.name = "UpwardNameInPax",
       .tar = TarBuilder().Add({.name = "a", .pax = {{"path", "../outside/file"}}}).Finish(),
       .message = "leads upward"},
      {.name = "TopAsFile",
       .tar = TarBuilder().File(".").Finish(),
       .message = "the top is a directory"},
      {.name = "TopAsSymlink",
       .tar = TarBuilder().Symlink(".", "/etc").Finish(),
       .message = "the top is a directory"},
      {.name = "TopAsHardlink",
       .tar = TarBuilder().File("a").Hardlink("/", "a").Finish(),
       .message = "the top is a directory"},
      {.name = "NameLongerThanAFileSystemHas",
       .tar = TarBuilder().Add({.name = "a", .pax = {{"path", std::string(256, 'n')}}}).Finish(),
       .message = "longer than 255 bytes"},
      {.name = "PathLongerThanTheKernelTakes",
       .tar = TarBuilder().Add({.name = "a", .pax = {{"path", Repeat("d/", 3000)}}}).Finish(),
       .message = "longer than 4095 bytes"},
      {.name = "PathThatGrowsBySymlinks",
       .tar = TarBuilder()
                  .Add({.name = "l",
                        .type = '2',
                        .link = "x",
                        .pax = {{"linkpath", Repeat("d/", 2000)}}})
                  .Add({.name = "a", .pax = {{"path", "l/" + Repeat("e/", 1000) + "f"}}})
                  .Finish(),
       .message = "longer than 4095 bytes"},
      {.name = "DeepPathIsMade",
       .tar = TarBuilder().Add({.name = "a", .pax = {{"path", Repeat("d/", 1900) + "f"}}}).Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_TRUE(Exists(root / "d/d/d/d")); }},
      {.name = "NameEndsAtItsNul",
       .tar = TarBuilder()
                  .Add({.name = "a", .pax = {{"path", std::string("b\0/../../x", 10)}}})
                  .Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_TRUE(Exists(root / "b")); }},
      {.name = "BrokenUtf8IsKept",
       .tar = TarBuilder().File("\xff\xfe", "x").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "\xff\xfe"), "x"); }},
      {.name = "EmptyName",
       .tar = TarBuilder().File("", "x").Finish(),
       .message = "the top is a directory"},
  };
}

std::vector<HostileCase> Symlinks() {
  const auto below = [](const fs::path& root) { EXPECT_FALSE(Exists(root / "outside")); };
  return {
      {.name = "FileThroughAnAbsoluteSymlinkIsInside",
       .tar = TarBuilder().Symlink("l", "/outside").File("l/file", "x").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "outside/file"), "x"); }},
      {.name = "FileThroughAnUpwardSymlinkIsInside",
       .tar = TarBuilder().Symlink("l", "../../outside").File("l/file", "x").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "outside/file"), "x"); }},
      {.name = "FileThroughTwoSymlinksIsInside",
       .tar = TarBuilder()
                  .Directory("d")
                  .Symlink("d/up", "..")
                  .Symlink("l", "d/up/../../outside")
                  .File("l/file", "x")
                  .Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "outside/file"), "x"); }},
      {.name = "DirectorySwappedForASymlink",
       .tar = TarBuilder()
                  .Directory("d")
                  .File("d/one", "1")
                  .Symlink("d", "/outside")
                  .File("d/file", "x")
                  .Finish(),
       .code = StatusCode::kOk,
       .check =
           [](const fs::path& root) {
             EXPECT_EQ(ReadText(root / "outside/file"), "x");
             EXPECT_TRUE(fs::is_symlink(root / "d"));
           }},
      {.name = "SymlinkSwappedForADirectory",
       .tar = TarBuilder().Symlink("d", "../outside").Directory("d").File("d/file", "x").Finish(),
       .code = StatusCode::kOk,
       .check =
           [below](const fs::path& root) {
             below(root);
             EXPECT_EQ(ReadText(root / "d/file"), "x");
           }},
      {.name = "ParentSwappedBehindAnOpenDirectory",
       .tar = TarBuilder()
                  .Directory("a")
                  .Directory("a/b")
                  .File("a/b/one", "1")
                  .Symlink("a", "../outside")
                  .File("a/b/two", "2")
                  .Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "outside/b/two"), "2"); }},
      {.name = "FileInTheSymlinksOwnPlaceReplacesIt",
       .tar = TarBuilder().Symlink("l", "../outside/file").File("l", "x").Finish(),
       .code = StatusCode::kOk,
       .check =
           [](const fs::path& root) {
             EXPECT_FALSE(fs::is_symlink(root / "l"));
             EXPECT_EQ(ReadText(root / "l"), "x");
           }},
      {.name = "ModeOfASymlinkIsNotItsTargets",
       .tar = TarBuilder()
                  .Add({.name = "l", .type = '2', .link = "../outside/file", .mode = 0})
                  .Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_TRUE(fs::is_symlink(root / "l")); }},
      {.name = "SymlinkLoop",
       .tar = TarBuilder().Symlink("a", "b").Symlink("b", "a").File("a/f", "x").Finish(),
       .message = "open"},
      {.name = "SymlinkToItself",
       .tar = TarBuilder().Symlink("a", "a").File("a/f", "x").Finish(),
       .message = "open"},
      {.name = "SymlinkToProcStaysInside",
       .tar = TarBuilder().Symlink("l", "/proc/self/cwd").File("l/file", "x").Finish(),
       .code = StatusCode::kOk,
       .check =
           [](const fs::path& root) { EXPECT_EQ(ReadText(root / "proc/self/cwd/file"), "x"); }},
      {.name = "SymlinkOfALowerLayerStaysInside",
       .tar = TarBuilder().File("l/file", "x").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "outside/file"), "x"); },
       .before = [](const fs::path& root) { fs::create_symlink("../outside", root / "l"); }},
      {.name = "SymlinkWithoutTarget",
       .tar = TarBuilder().Symlink("l", "").Finish(),
       .message = "without a target"},
      {.name = "FileAsParent",
       .tar = TarBuilder().File("a", "x").File("a/b", "x").Finish(),
       .message = "open"},
      {.name = "FifoAsParentDoesNotHang",
       .tar = TarBuilder().Add({.name = "a", .type = '6'}).File("a/b", "x").Finish(),
       .message = "open"},
  };
}

std::vector<HostileCase> Hardlinks() {
  return {
      {.name = "HardlinkUpward",
       .tar = TarBuilder().Hardlink("a", "../outside/file").Finish(),
       .message = "leads upward"},
      {.name = "AbsoluteHardlinkIsInside",
       .tar = TarBuilder().Hardlink("a", "/outside/file").Finish(),
       .message = "link it to '/outside/file'"},
      {.name = "HardlinkThroughASymlinkIsInside",
       .tar = TarBuilder().Symlink("l", "../outside").Hardlink("a", "l/file").Finish(),
       .message = "link it to 'l/file'"},
      {.name = "HardlinkToASymlinkLinksTheSymlink",
       .tar = TarBuilder().Symlink("l", "../outside/file").Hardlink("a", "l").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_TRUE(fs::is_symlink(root / "a")); }},
      {.name = "WriteThroughAHardlinkedSymlinkReplacesIt",
       .tar =
           TarBuilder().Symlink("l", "../outside/file").Hardlink("a", "l").File("a", "x").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "a"), "x"); }},
      {.name = "HardlinkToADirectory",
       .tar = TarBuilder().Directory("d").Hardlink("a", "d").Finish(),
       .message = "it is a directory"},
      {.name = "HardlinkToTheTop",
       .tar = TarBuilder().Hardlink("a", "/").Finish(),
       .message = "the top is a directory"},
      {.name = "HardlinkToNothing",
       .tar = TarBuilder().Hardlink("a", "b").Finish(),
       .message = "link it to 'b'"},
      {.name = "HardlinkToItselfChangesNothing",
       .tar = TarBuilder().File("a", "x").Hardlink("a", "a").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "a"), "x"); }},
      {.name = "HardlinkOverTheDirectoryOfItsTarget",
       .tar = TarBuilder().Directory("d").File("d/a", "x").Hardlink("d", "d/a").Finish(),
       .message = "link it to 'd/a'"},
      {.name = "HardlinkToAWhitedOutName",
       .tar = TarBuilder().File(".wh.a").Hardlink("b", "a").Finish(),
       .message = "link it to 'a'",
       .before = [](const fs::path& root) { WriteText(root / "a", "x"); }},
  };
}

std::vector<HostileCase> Nodes() {
  const auto in_user_namespace = [](ApplyOptions& options) { options.user_namespace = true; };
  return {
      {.name = "DeviceInAUserNamespaceIsLeftOut",
       .tar = TarBuilder().Add({.name = "disk", .type = '4', .major = 254}).File("a", "x").Finish(),
       .code = StatusCode::kOk,
       .check =
           [](const fs::path& root) {
             EXPECT_FALSE(Exists(root / "disk"));
             EXPECT_EQ(ReadText(root / "a"), "x");
           },
       .options = in_user_namespace},
      {.name = "DeviceIsAsTheArchiveSays",
       .tar = TarBuilder()
                  .Add({.name = "null", .type = '3', .mode = 0600, .major = 1, .minor = 3})
                  .Finish(),
       .code = StatusCode::kOk,
       .check =
           [](const fs::path& root) {
             EXPECT_EQ(StatOf(root / "null").st_rdev, makedev(1, 3));
             EXPECT_EQ(StatOf(root / "null").st_mode, S_IFCHR | 0600);
           }},
      {.name = "FifoIsNotOpened",
       .tar = TarBuilder().Add({.name = "f", .type = '6'}).File("f", "x").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "f"), "x"); }},
      {.name = "OwnerBeyond32Bits",
       .tar = TarBuilder().Add({.name = "a", .pax = {{"uid", "4294967296"}}}).Finish(),
       .message = "its uid is 4294967296"},
      {.name = "OwnerThatMeansNobody",
       .tar = TarBuilder().Add({.name = "a", .pax = {{"gid", "4294967295"}}}).Finish(),
       .message = "its gid is 4294967295"},
      {.name = "SetuidSurvivesTheChangeOfOwner",
       .tar = TarBuilder().Add({.name = "a", .mode = 06755, .uid = 7}).Finish(),
       .code = StatusCode::kOk,
       .check =
           [](const fs::path& root) { EXPECT_EQ(StatOf(root / "a").st_mode, S_IFREG | 06755); }},
  };
}

std::vector<HostileCase> Whiteouts() {
  const auto with_file = [](const fs::path& root) {
    Directory(root / "d");
    WriteText(root / "d/old", "old");
    WriteText(root / "a", "old");
  };
  return {
      {.name = "WhiteoutOfTheTop",
       .tar = TarBuilder().File(".wh.").Finish(),
       .message = "a whiteout of no name"},
      {.name = "WhiteoutOfHere",
       .tar = TarBuilder().File(".wh..").Finish(),
       .message = "a whiteout of no name"},
      {.name = "WhiteoutOfAbove",
       .tar = TarBuilder().File(".wh...").Finish(),
       .message = "a whiteout of no name"},
      {.name = "WhiteoutUpward",
       .tar = TarBuilder().File("../.wh.outside").Finish(),
       .message = "leads upward"},
      {.name = "WhiteoutThroughASymlinkIsInside",
       .tar = TarBuilder().Symlink("l", "..").File("l/.wh.outside").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_TRUE(fs::is_symlink(root / "l")); }},
      {.name = "OpaqueThroughASymlinkIsInside",
       .tar = TarBuilder().Symlink("l", "../outside").File("l/.wh..wh..opq").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_TRUE(fs::is_symlink(root / "l")); }},
      {.name = "WhiteoutOfAWhiteoutIsAufs",
       .tar = TarBuilder().File(".wh..wh.a").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "a"), "old"); },
       .before = with_file},
      {.name = "WhiteoutAsDirectory",
       .tar = TarBuilder().Directory(".wh.a").File(".wh.a/b", "x").Finish(),
       .message = "a whiteout is no directory"},
      {.name = "WhiteoutOfThisLayersOwnFileKeepsIt",
       .tar = TarBuilder().File("a", "new").File(".wh.a").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "a"), "new"); },
       .before = with_file},
      {.name = "WhiteoutOfADirectoryKeepsWhatThisLayerPutThere",
       .tar = TarBuilder().File("d/new", "new").File(".wh.d").Finish(),
       .code = StatusCode::kOk,
       .check =
           [](const fs::path& root) {
             EXPECT_EQ(ReadText(root / "d/new"), "new");
             EXPECT_FALSE(Exists(root / "d/old"));
           },
       .before = with_file},
      {.name = "OpaqueTopKeepsThisLayer",
       .tar = TarBuilder().File("b", "new").File(".wh..wh..opq").Finish(),
       .code = StatusCode::kOk,
       .check =
           [](const fs::path& root) {
             EXPECT_EQ(ReadText(root / "b"), "new");
             EXPECT_FALSE(Exists(root / "a"));
             EXPECT_FALSE(Exists(root / "d"));
           },
       .before = with_file},
      {.name = "WhiteoutOfNothing",
       .tar = TarBuilder().File("no/such/.wh.a").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_FALSE(Exists(root / "no")); }},
  };
}

std::vector<HostileCase> Duplicates() {
  return {
      {.name = "LaterFileWins",
       .tar = TarBuilder().File("a", "1").File("a", "2").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "a"), "2"); }},
      {.name = "FileOverADirectory",
       .tar = TarBuilder().Directory("a").File("a/b", "1").File("a", "2").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "a"), "2"); }},
      {.name = "DirectoryOverAFile",
       .tar = TarBuilder().File("a", "1").Directory("a").File("a/b", "2").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "a/b"), "2"); }},
      {.name = "DirectoryTwiceKeepsWhatIsInIt",
       .tar = TarBuilder().Directory("a", 0700).File("a/b", "1").Directory("a", 0755).Finish(),
       .code = StatusCode::kOk,
       .check =
           [](const fs::path& root) {
             EXPECT_EQ(ReadText(root / "a/b"), "1");
             EXPECT_EQ(StatOf(root / "a").st_mode, S_IFDIR | 0755);
           }},
      {.name = "FileOverAHardlinkDoesNotWriteTheOther",
       .tar = TarBuilder().File("a", "1").Hardlink("b", "a").File("b", "2").Finish(),
       .code = StatusCode::kOk,
       .check =
           [](const fs::path& root) {
             EXPECT_EQ(ReadText(root / "a"), "1");
             EXPECT_EQ(ReadText(root / "b"), "2");
           }},
      {.name = "TimesOfAReplacedDirectoryGoNowhere",
       .tar = TarBuilder().Directory("a").Symlink("a", "../outside").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_TRUE(fs::is_symlink(root / "a")); }},
  };
}

std::vector<HostileCase> Sizes() {
  const auto small = [](ApplyOptions& options) {
    options.max_bytes = 1000;
    options.max_entries = 10;
  };
  const std::string negative("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", 12);
  const std::string huge("\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", 12);
  const std::string petabyte("\x80\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00", 12);
  std::string truncated = TarBuilder().File("a", std::string(2000, 'x')).bytes();
  truncated.resize(1024);
  std::string damaged = TarBuilder().File("a", "x").File("b", "x").Finish();
  damaged[1024] = 'z';
  return {
      {.name = "NegativeSize",
       .tar = TarBuilder().Add({.name = "a", .size_field = negative}).Finish()},
      {.name = "SizeOfNearly64Bits",
       .tar = TarBuilder().Add({.name = "a", .size_field = huge}).Finish(),
       .message = "overflow"},
      {.name = "SizeOfAPetabyte",
       .tar = TarBuilder().Add({.name = "a", .size_field = petabyte}).Finish(),
       .code = StatusCode::kResourceExhausted,
       .message = "a file of"},
      {.name = "NegativeSizeInPax",
       .tar = TarBuilder().Add({.name = "a", .content = "x", .pax = {{"size", "-1"}}}).Finish()},
      {.name = "TruncatedInAFile", .tar = truncated, .message = "runcated"},
      {.name = "TruncatedInAHeader", .tar = std::string(TarBuilder().File("a").bytes(), 0, 300)},
      {.name = "NoTarAtAll", .tar = Repeat("garbage!", 1000), .message = "layer"},
      {.name = "DamagedHeaderInTheMiddle", .tar = damaged, .message = "amaged"},
      {.name = "GarbageBehindTheEndIsIgnored",
       .tar = TarBuilder().File("a", "x").Finish() + Repeat("garbage!", 5000),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_EQ(ReadText(root / "a"), "x"); }},
      {.name = "EntriesBehindTheEndAreIgnored",
       .tar = TarBuilder().Finish() + TarBuilder().File("a", "x").Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_FALSE(Exists(root / "a")); }},
      {.name = "MoreEntriesThanAllowed",
       .tar = Repeat(TarBuilder().File("a").bytes(), 11) + std::string(1024, '\0'),
       .code = StatusCode::kResourceExhausted,
       .message = "more than 10 entries",
       .options = small},
      {.name = "FileLargerThanAllowed",
       .tar = TarBuilder().File("a", std::string(1001, 'x')).Finish(),
       .code = StatusCode::kResourceExhausted,
       .message = "a file of 1001 bytes",
       .options = small},
      {.name = "FilesLargerThanAllowedTogether",
       .tar =
           TarBuilder().File("a", std::string(600, 'x')).File("b", std::string(600, 'x')).Finish(),
       .code = StatusCode::kResourceExhausted,
       .message = "more than 1000 bytes",
       .options = small},
      {.name = "EndlessTail",
       .tar = TarBuilder().Finish() + std::string(100'000, '\0'),
       .code = StatusCode::kResourceExhausted,
       .message = "a layer's tar of more than",
       .options = small},
      {.name = "HugePaxHeader",
       .tar = TarBuilder()
                  .Add({.name = "x", .type = 'x', .content = std::string(2 << 20, 'x')})
                  .File("a")
                  .Finish()},
      {.name = "PaxRecordLongerThanItsHeader",
       .tar = TarBuilder()
                  .Add({.name = "x", .type = 'x', .content = "999 path=a\n"})
                  .File("a")
                  .Finish()},
      {.name = "HardlinkWithData",
       .tar = TarBuilder()
                  .File("a", "1")
                  .Add({.name = "b", .type = '1', .content = "22", .link = "a"})
                  .File("c", "3")
                  .Finish(),
       .message = "amaged"},
  };
}

std::vector<HostileCase> SparseFiles() {
  return {
      {.name = "SparseFileHasItsHoles",
       .tar = GnuSparse({{"00000010000", "00000000001"}}, "00000020000", "x"),
       .code = StatusCode::kOk,
       .check =
           [](const fs::path& root) {
             const std::string text = ReadText(root / "sparse");
             EXPECT_EQ(text, std::string(4096, '\0') + "x" + std::string(4095, '\0'));
           }},
      {.name = "SparseDataBeyondTheEnd",
       .tar = GnuSparse({{"00000040000", "00000000001"}}, "00000020000", "x"),
       .message = "sparse"},
      {.name = "SparseMapsThatOverlap",
       .tar = GnuSparse({{"00000000000", "00000000010"}, {"00000000004", "00000000010"}},
                        "00000000020", std::string(16, 'x')),
       .message = "sparse"},
      {.name = "SparseFileOfAlmostAllNumbers",
       .tar = GnuSparse({{"00000000000", "00000000001"}}, "77777777777", "x"),
       .code = StatusCode::kResourceExhausted,
       .message = "a file of 8589934591 bytes",
       .options = [](ApplyOptions& options) { options.max_bytes = uint64_t{1} << 30; }},
      {.name = "SparseMapInPaxThatIsNone",
       .tar = TarBuilder()
                  .Add({.name = "a",
                        .content = "not a map\n",
                        .pax = {{"GNU.sparse.major", "1"},
                                {"GNU.sparse.minor", "0"},
                                {"GNU.sparse.realsize", "100"}}})
                  .Finish()},
  };
}

std::vector<HostileCase> Xattrs() {
  const auto none = [](const fs::path& root, const char* name) {
    char value[16];
    EXPECT_EQ(::lgetxattr((root / "a").c_str(), name, value, sizeof(value)), -1);
  };
  return {
      {.name = "OverlaysOwnXattrIsLeftOut",
       .tar = TarBuilder()
                  .Add({.name = "a",
                        .type = '5',
                        .mode = 0755,
                        .pax = {{"SCHILY.xattr.trusted.overlay.redirect", "/outside"}}})
                  .Finish(),
       .code = StatusCode::kOk,
       .check = [none](const fs::path& root) { none(root, "trusted.overlay.redirect"); }},
      {.name = "UserOverlaysOwnXattrIsLeftOut",
       .tar = TarBuilder()
                  .Add({.name = "a", .pax = {{"SCHILY.xattr.user.overlay.opaque", "y"}}})
                  .Finish(),
       .code = StatusCode::kOk,
       .check = [none](const fs::path& root) { none(root, "user.overlay.opaque"); }},
      {.name = "XattrWithoutANamespace",
       .tar = TarBuilder().Add({.name = "a", .pax = {{"SCHILY.xattr.foo", "x"}}}).Finish(),
       .code = StatusCode::kOk,
       .check = [none](const fs::path& root) { none(root, "foo"); }},
      {.name = "XattrNameTooLong",
       .tar = TarBuilder()
                  .Add({.name = "a", .pax = {{"SCHILY.xattr.user." + std::string(300, 'n'), "x"}}})
                  .Finish(),
       .message = "set xattr"},
      {.name = "XattrOfASymlinkIsNotItsTargets",
       .tar = TarBuilder()
                  .Add({.name = "a",
                        .type = '2',
                        .link = "../outside/file",
                        .pax = {{"SCHILY.xattr.user.x", "x"}, {"SCHILY.xattr.trusted.x", "x"}}})
                  .Finish(),
       .code = StatusCode::kOk,
       .check = [](const fs::path& root) { EXPECT_TRUE(fs::is_symlink(root / "a")); }},
  };
}

std::vector<HostileCase> AllCases() {
  std::vector<HostileCase> all;
  for (auto* group : {&Names, &Symlinks, &Hardlinks, &Nodes, &Whiteouts, &Duplicates, &Sizes,
                      &SparseFiles, &Xattrs}) {
    for (HostileCase& one : group()) {
      all.push_back(std::move(one));
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, HostileLayer, ::testing::ValuesIn(AllCases()),
                         [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace strata
