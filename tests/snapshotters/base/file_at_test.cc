// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/file_at.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using ::strata::testing::IsOk;
using ::strata::testing::StatusIs;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Optional;
using ::testing::UnorderedElementsAre;

// A directory with: file, d/e/deep, to_file -> file, to_d -> d, d/up -> ../file, and beside it
// `secret`, which nothing may reach from inside.
class FileAtTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(temp_.Join("in/d/e"));
    Write("secret", "secret");
    Write("in/file", "content");
    Write("in/d/e/deep", "deep");
    std::filesystem::create_symlink("file", temp_.Join("in/to_file"));
    std::filesystem::create_symlink("d", temp_.Join("in/to_d"));
    std::filesystem::create_symlink("../file", temp_.Join("in/d/up"));
    std::filesystem::create_symlink(temp_.path(), temp_.Join("in/d/out"));
    STRATA_ASSERT_OK_AND_ASSIGN(dir_, OpenFile(temp_.Join("in"), O_RDONLY | O_DIRECTORY));
  }

  void TearDown() override { (void)::umask(umask_); }  // cannot fail

  void Write(const std::string& name, std::string_view content) {
    std::ofstream(temp_.Join(name)) << content;
  }

  [[nodiscard]] StatusOr<std::string> ReadBeneath(std::string_view path) const {
    STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenBeneath(dir_.get(), path, O_RDONLY));
    std::array<char, 64> buffer{};
    const ssize_t count = ::read(fd.get(), buffer.data(), buffer.size());
    if (count < 0) {
      return ErrnoStatus(errno, "read");
    }
    return std::string(buffer.data(), static_cast<size_t>(count));
  }

  [[nodiscard]] mode_t ModeOf(const std::string& name) const {
    struct stat found {};
    EXPECT_EQ(::lstat(temp_.Join("in/" + name).c_str(), &found), 0) << name;
    return found.st_mode & 07777;
  }

  [[nodiscard]] std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(temp_.Join("in"))) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  testing::TempDir temp_;
  UniqueFd dir_;
  const mode_t umask_ = ::umask(022);
};

bool IsCloseOnExec(const UniqueFd& fd) {
  return (::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0;
}

// The second run of these tests, under deny_syscalls, is the one that proves the way without
// openat2.
TEST_F(FileAtTest, DeniedCallsAreDenied) {
  const char* denied = std::getenv("STRATA_TEST_DENIED_SYSCALLS");
  if (denied == nullptr || std::string_view(denied).find("openat2") == std::string_view::npos) {
    GTEST_SKIP() << "openat2 is not denied in this run";
  }
  open_how how{};
  EXPECT_EQ(::syscall(SYS_openat2, dir_.get(), "file", &how, sizeof(how)), -1);
  EXPECT_EQ(errno, ENOSYS);
}

TEST_F(FileAtTest, OpenFileIsCloseOnExecAndNamesThePath) {
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd fd, OpenFile(temp_.Join("in/file"), O_RDONLY));
  EXPECT_TRUE(IsCloseOnExec(fd));
  EXPECT_THAT(OpenFile(temp_.Join("none"), O_RDONLY),
              StatusIs(StatusCode::kNotFound, HasSubstr("'" + temp_.Join("none") + "'")));
}

TEST_F(FileAtTest, OpenAtIsCloseOnExecAndNamesTheFile) {
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd fd, OpenAt(dir_.get(), "file", O_RDONLY));
  EXPECT_TRUE(IsCloseOnExec(fd));
  EXPECT_THAT(OpenAt(dir_.get(), "none", O_RDONLY),
              StatusIs(StatusCode::kNotFound, HasSubstr("'none'")));
}

TEST_F(FileAtTest, OpenAtFollowsNoSymlink) {
  EXPECT_THAT(StatusErrno(OpenAt(dir_.get(), "to_file", O_RDONLY).status()), Optional(ELOOP));
}

TEST_F(FileAtTest, OpenBeneathTakesPathsOfAnyDepth) {
  EXPECT_EQ(ReadBeneath("file").value(), "content");
  EXPECT_EQ(ReadBeneath("d/e/deep").value(), "deep");
  EXPECT_EQ(ReadBeneath("d//e/./deep").value(), "deep");
  EXPECT_EQ(ReadBeneath("./file").value(), "content");
}

TEST_F(FileAtTest, OpenBeneathIsCloseOnExec) {
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd fd, OpenBeneath(dir_.get(), "d/e/deep", O_RDONLY));
  EXPECT_TRUE(IsCloseOnExec(fd));
}

TEST_F(FileAtTest, OpenBeneathOpensDirectories) {
  for (const char* path : {".", "./", "d", "d/", "d/e//", "d/."}) {
    EXPECT_THAT(OpenBeneath(dir_.get(), path, O_RDONLY | O_DIRECTORY), IsOk()) << path;
    EXPECT_THAT(OpenBeneath(dir_.get(), path, O_RDONLY), IsOk()) << path;
    EXPECT_THAT(OpenBeneath(dir_.get(), path, O_PATH), IsOk()) << path;
  }
}

TEST_F(FileAtTest, OpenBeneathTakesASlashForADirectory) {
  EXPECT_THAT(StatusErrno(OpenBeneath(dir_.get(), "file/", O_RDONLY).status()), Optional(ENOTDIR));
  EXPECT_THAT(StatusErrno(OpenBeneath(dir_.get(), "file/x", O_RDONLY).status()), Optional(ENOTDIR));
}

TEST_F(FileAtTest, OpenBeneathCreates) {
  {
    STRATA_ASSERT_OK_AND_ASSIGN(
        const UniqueFd fd, OpenBeneath(dir_.get(), "d/e/new", O_WRONLY | O_CREAT | O_EXCL, 0640));
    EXPECT_THAT(WriteAll(fd.get(), "x", "d/e/new"), IsOk());
  }
  EXPECT_EQ(ModeOf("d/e/new"), 0640U);
  EXPECT_THAT(OpenBeneath(dir_.get(), "d/e/new", O_WRONLY | O_CREAT | O_EXCL, 0640),
              StatusIs(StatusCode::kAlreadyExists));
}

TEST_F(FileAtTest, OpenBeneathSaysWhatIsMissing) {
  EXPECT_THAT(OpenBeneath(dir_.get(), "none", O_RDONLY), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(OpenBeneath(dir_.get(), "none/x", O_RDONLY), StatusIs(StatusCode::kNotFound));
}

TEST_F(FileAtTest, OpenBeneathRefusesASymlinkAtTheEnd) {
  for (const int flags : {O_RDONLY, O_PATH, O_RDWR | O_CREAT}) {
    EXPECT_THAT(StatusErrno(OpenBeneath(dir_.get(), "to_file", flags).status()), Optional(ELOOP))
        << flags;
    EXPECT_THAT(StatusErrno(OpenBeneath(dir_.get(), "d/up", flags).status()), Optional(ELOOP))
        << flags;
  }
}

TEST_F(FileAtTest, OpenBeneathShowsASymlinkWhenAskedForIt) {
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd fd,
                              OpenBeneath(dir_.get(), "d/up", O_PATH | O_NOFOLLOW));
  struct stat found {};
  ASSERT_EQ(::fstat(fd.get(), &found), 0);
  EXPECT_TRUE(S_ISLNK(found.st_mode));
}

TEST_F(FileAtTest, OpenBeneathRefusesASymlinkOnTheWay) {
  // openat2 answers ELOOP, the way without it ENOTDIR.
  for (const char* path : {"to_d/e/deep", "d/out/secret", "to_d/"}) {
    EXPECT_THAT(StatusErrno(OpenBeneath(dir_.get(), path, O_RDONLY).status()),
                AnyOf(Optional(ELOOP), Optional(ENOTDIR)))
        << path;
  }
}

struct PathCase {
  const char* name;
  std::string path;
};

class FileAtBadPathTest : public FileAtTest, public ::testing::WithParamInterface<PathCase> {};

TEST_P(FileAtBadPathTest, OpenBeneathRefusesIt) {
  EXPECT_THAT(OpenBeneath(dir_.get(), GetParam().path, O_RDONLY),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("expected a relative path")));
}

INSTANTIATE_TEST_SUITE_P(
    Paths, FileAtBadPathTest,
    ::testing::Values(PathCase{"Empty", ""}, PathCase{"Absolute", "/file"},
                      PathCase{"Parent", ".."}, PathCase{"ParentFirst", "../secret"},
                      PathCase{"ParentInside", "d/../file"}, PathCase{"ParentLast", "d/.."},
                      PathCase{"ParentWithSlash", "d/../"},
                      PathCase{"Nul", std::string("file\0/x", 7)},
                      PathCase{"NulHidesAParent", std::string("d\0/../../secret", 15)}),
    [](const ::testing::TestParamInfo<PathCase>& test) { return std::string(test.param.name); });

TEST_F(FileAtTest, DotsInANameAreOrdinary) {
  Write("in/..x", "one");
  Write("in/...", "two");
  EXPECT_EQ(ReadBeneath("..x").value(), "one");
  EXPECT_EQ(ReadBeneath("...").value(), "two");
}

TEST_F(FileAtTest, ReadFileAtReadsUpToTheLimit) {
  EXPECT_EQ(ReadFileAt(dir_.get(), "file", /*limit=*/7).value(), "content");
  EXPECT_THAT(ReadFileAt(dir_.get(), "file", /*limit=*/6),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("at most 6 bytes")));
}

TEST_F(FileAtTest, ReadFileAtReadsEmptyAndLongFiles) {
  Write("in/empty", "");
  EXPECT_EQ(ReadFileAt(dir_.get(), "empty", /*limit=*/0).value(), "");
  const std::string content(100'000, 'x');
  Write("in/long", content);
  EXPECT_EQ(ReadFileAt(dir_.get(), "long", content.size()).value(), content);
}

TEST_F(FileAtTest, ReadFileAtSaysWhatIsWrong) {
  EXPECT_THAT(ReadFileAt(dir_.get(), "none", 1), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(ReadFileAt(dir_.get(), "d", 1), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(StatusErrno(ReadFileAt(dir_.get(), "to_file", 1).status()), Optional(ELOOP));
}

TEST_F(FileAtTest, WriteFileAtomicCreatesAndReplaces) {
  ASSERT_THAT(WriteFileAtomicAt(dir_.get(), "new", "one", 0600), IsOk());
  EXPECT_EQ(ReadBeneath("new").value(), "one");
  ASSERT_THAT(WriteFileAtomicAt(dir_.get(), "new", "2", 0640), IsOk());
  EXPECT_EQ(ReadBeneath("new").value(), "2");
  EXPECT_EQ(ModeOf("new"), 0640U);
  EXPECT_THAT(Names(), UnorderedElementsAre("file", "d", "to_file", "to_d", "new"));
}

TEST_F(FileAtTest, WriteFileAtomicGivesTheModeWhateverTheUmask) {
  (void)::umask(077);  // cannot fail
  ASSERT_THAT(WriteFileAtomicAt(dir_.get(), "new", "one", 0644), IsOk());
  EXPECT_EQ(ModeOf("new"), 0644U);
}

TEST_F(FileAtTest, WriteFileAtomicIgnoresWhatACrashLeft) {
  Write("in/new.new", "a longer text of before");
  ASSERT_EQ(::chmod(temp_.Join("in/new.new").c_str(), 0666), 0);
  ASSERT_THAT(WriteFileAtomicAt(dir_.get(), "new", "one", 0600), IsOk());
  EXPECT_EQ(ReadBeneath("new").value(), "one");
  EXPECT_EQ(ModeOf("new"), 0600U);
}

TEST_F(FileAtTest, WriteFileAtomicReplacesASymlinkNotItsTarget) {
  ASSERT_THAT(WriteFileAtomicAt(dir_.get(), "to_file", "one", 0600), IsOk());
  EXPECT_EQ(ReadBeneath("to_file").value(), "one");
  EXPECT_EQ(ReadBeneath("file").value(), "content");
}

TEST_F(FileAtTest, WriteFileAtomicThatFailsLeavesNoTrace) {
  EXPECT_THAT(StatusErrno(WriteFileAtomicAt(dir_.get(), "d", "one", 0600)), Optional(EISDIR));
  EXPECT_THAT(Names(), UnorderedElementsAre("file", "d", "to_file", "to_d"));
}

TEST_F(FileAtTest, MakeDirGivesTheModeWhateverTheUmask) {
  (void)::umask(077);  // cannot fail
  ASSERT_THAT(MakeDirAt(dir_.get(), "open", 0755), IsOk());
  EXPECT_EQ(ModeOf("open"), 0755U);
  ASSERT_THAT(MakeDirAt(dir_.get(), "sticky", 01777), IsOk());
  EXPECT_EQ(ModeOf("sticky"), 01777U);
}

TEST_F(FileAtTest, MakeDirDropsAnInheritedSetgidBit) {
  ASSERT_EQ(::fchmod(dir_.get(), 02755), 0);
  ASSERT_THAT(MakeDirAt(dir_.get(), "made", 0755), IsOk());
  EXPECT_EQ(ModeOf("made"), 0755U);
}

TEST_F(FileAtTest, MakeDirTakesNothingThatIsThere) {
  EXPECT_THAT(MakeDirAt(dir_.get(), "d", 0700),
              StatusIs(StatusCode::kAlreadyExists, HasSubstr("'d'")));
  EXPECT_THAT(MakeDirAt(dir_.get(), "to_d", 0700), StatusIs(StatusCode::kAlreadyExists));
}

TEST_F(FileAtTest, MakePathMakesWhatIsMissing) {
  ASSERT_EQ(::fchmod(dir_.get(), 0751), 0);
  ASSERT_THAT(MakePath(temp_.Join("in/a/b//c/"), 0700), IsOk());
  EXPECT_EQ(ModeOf("."), 0751U);
  EXPECT_EQ(ModeOf("a"), 0700U);
  EXPECT_EQ(ModeOf("a/b/c"), 0700U);
}

TEST_F(FileAtTest, MakePathTakesWhatIsThere) {
  EXPECT_THAT(MakePath("/", 0700), IsOk());
  EXPECT_THAT(MakePath(temp_.Join("in/to_d/e"), 0700), IsOk());
  EXPECT_EQ(ModeOf("d/e"), 0755U);
}

TEST_F(FileAtTest, MakePathNamesWhatItCannotMake) {
  EXPECT_THAT(MakePath(temp_.Join("in/file/x/y"), 0700),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("in/file/x'")));
}

// What is on a read-only file system is there all the same: mkdir(2) may answer EROFS for it.
TEST_F(FileAtTest, MakePathPassesParentsThatCannotBeWritten) {
  EXPECT_THAT(MakePath("/proc/self/fd", 0700), IsOk());
  EXPECT_THAT(StatusErrno(MakePath("/proc/self/none", 0700)), Optional(ENOENT));
}

TEST_F(FileAtTest, WriteAllGoesOnAfterShortWrites) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const std::string content(1'000'000, 'x');  // more than a pipe holds
  size_t received = 0;
  {
    const std::jthread drain([&] {
      std::array<char, 1000> buffer{};
      for (ssize_t n = 1; n > 0; received += static_cast<size_t>(n)) {
        n = ::read(reader.get(), buffer.data(), buffer.size());
        ASSERT_GE(n, 0);
      }
    });
    EXPECT_THAT(WriteAll(writer.get(), content, "pipe"), IsOk());
    writer.Reset();
  }
  EXPECT_EQ(received, content.size());
}

TEST_F(FileAtTest, WriteAllNamesWhatItWrote) {
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd fd, OpenAt(dir_.get(), "file", O_RDONLY));
  EXPECT_THAT(WriteAll(fd.get(), "", "file"), IsOk());
  EXPECT_THAT(WriteAll(fd.get(), "x", "file"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("write 'file'")));
}

}  // namespace
}  // namespace strata
