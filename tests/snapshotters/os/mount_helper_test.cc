// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/mount_helper.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/fuse_overlay_probe.h"
#include "snapshotters/os/mount_ops.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using strata::testing::IsOk;
using strata::testing::StatusIs;
using strata::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

// PATH for the time of a test.
class ScopedPath {
 public:
  explicit ScopedPath(const std::string& path) {
    const char* old = ::getenv("PATH");
    old_ = old == nullptr ? "" : old;
    EXPECT_EQ(::setenv("PATH", path.c_str(), 1), 0);
  }
  ~ScopedPath() { (void)::setenv("PATH", old_.c_str(), 1); }
  ScopedPath(const ScopedPath&) = delete;
  ScopedPath& operator=(const ScopedPath&) = delete;

 private:
  std::string old_;
};

void MakeDir(const std::string& path) {
  ASSERT_EQ(::mkdir(path.c_str(), 0755), 0) << path;
}

void Write(const std::string& path, std::string_view content) {
  std::ofstream(path) << content;
}

std::string Read(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string Helper(std::string_view script) {
  return "#!/bin/sh\n" + std::string(script) + "\n";
}

class MountHelperMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: mounting needs root";
    }
    ASSERT_THAT(strata::testing::EnterPrivateMountNamespace(), IsOk());
    for (const char* name : {"lower1", "lower2", "upper", "work", "merged", "bin"}) {
      MakeDir(dir_.Join(name));
    }
    Write(dir_.Join("lower1/first"), "1");
    Write(dir_.Join("lower2/second"), "2");
  }

  // Nobody is left for this process to wait for, and nothing is mounted.
  void TearDown() override {
    if (::geteuid() != 0) {
      return;
    }
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
    EXPECT_THAT(Unmount(target(), /*lazy=*/false), StatusIs(StatusCode::kNotFound));
  }

  // A PATH in which the helper mount.fuse3 is this shell script.
  std::string PathWithHelper(std::string_view script) {
    Write(dir_.Join("bin/mount.fuse3"), Helper(script));
    EXPECT_EQ(::chmod(dir_.Join("bin/mount.fuse3").c_str(), 0755), 0);
    return dir_.Join("bin") + ":/usr/sbin:/usr/bin:/sbin:/bin";
  }

  [[nodiscard]] std::string target() const { return dir_.Join("merged"); }
  [[nodiscard]] Mount ReadOnly() const {
    return {std::string(kFuseOverlayType),
            "overlay",
            "",
            {"lowerdir=" + dir_.Join("lower2") + ":" + dir_.Join("lower1")}};
  }
  [[nodiscard]] Mount Writable() const {
    Mount mount = ReadOnly();
    mount.options.push_back("upperdir=" + dir_.Join("upper"));
    mount.options.push_back("workdir=" + dir_.Join("work"));
    return mount;
  }
  void ExpectWorks(const Mount& mount) {
    STRATA_ASSERT_OK_AND_ASSIGN(ScopedMount mounted, ScopedMount::Mount({&mount, 1}, target()));
    EXPECT_EQ(Read(target() + "/first") + Read(target() + "/second"), "12");
    Write(target() + "/new", "3");
    EXPECT_THAT(mounted.Unmount(), IsOk());
    EXPECT_EQ(Read(dir_.Join("upper/new")), "3");
  }

  TempDir dir_;
};

TEST_F(MountHelperMountTest, MountsFuseOverlayfsByTheHelper) {
  ExpectWorks(Writable());
}

TEST_F(MountHelperMountTest, RunsTheProgramItselfWhereThereIsNoHelper) {
  const std::string program = FindProgram("fuse-overlayfs").value_or("");
  ASSERT_EQ(::symlink(program.c_str(), dir_.Join("bin/fuse-overlayfs").c_str()), 0);
  const ScopedPath path(dir_.Join("bin"));
  ExpectWorks(Writable());
}

TEST_F(MountHelperMountTest, TheProgramItselfLetsRootsFilesBeSetuid) {
  const std::string program = FindProgram("fuse-overlayfs").value_or("");
  ASSERT_EQ(::symlink(program.c_str(), dir_.Join("bin/fuse-overlayfs").c_str()), 0);
  const ScopedPath path(dir_.Join("bin"));
  const Mount mount = Writable();
  STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount mounted, ScopedMount::Mount({&mount, 1}, target()));
  EXPECT_THAT(Read("/proc/self/mountinfo"), ::testing::Not(HasSubstr(target() + " rw,nosuid")));
}

TEST_F(MountHelperMountTest, MountsBelowTheTarget) {
  MakeDir(dir_.Join("merged/below"));
  Mount mount = Writable();
  mount.target = "below";
  ASSERT_THAT(MountAll({&mount, 1}, target()), IsOk());
  EXPECT_EQ(Read(dir_.Join("merged/below/first")), "1");
  EXPECT_THAT(Unmount(dir_.Join("merged/below"), /*lazy=*/false), IsOk());
}

TEST_F(MountHelperMountTest, MountsMoreLayersThanFitAPage) {
  constexpr int kLayers = 128;
  std::string base = dir_.path();
  base += "/" + std::string(100 - std::min<size_t>(99, base.size()), 'd');
  MakeDir(base);
  std::string lower;
  for (int i = 0; i < kLayers; ++i) {
    const std::string layer = base + "/" + std::to_string(i);
    MakeDir(layer);
    Write(layer + "/file", std::to_string(i));
    Write(layer + "/file" + std::to_string(i), "");
    lower += (lower.empty() ? "" : ":") + layer;
  }
  ASSERT_GT(lower.size(), 8192U);
  const Mount mount{std::string(kFuseOverlayType), "overlay", "", {"lowerdir=" + lower}};
  STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount mounted, ScopedMount::Mount({&mount, 1}, target()));
  EXPECT_EQ(Read(target() + "/file"), "0");
  EXPECT_EQ(::access((target() + "/file127").c_str(), F_OK), 0);
}

TEST_F(MountHelperMountTest, RefusesOptionsThatNoProgramCanBeGiven) {
  Mount mount = ReadOnly();
  mount.options.push_back("lowerdir=" + std::string(130 << 10, 'x'));
  EXPECT_THAT(MountAll({&mount, 1}, target()),
              AllOf(StatusIs(StatusCode::kResourceExhausted, HasSubstr("at most 126976 fit"))));
}

TEST_F(MountHelperMountTest, GivesTheOptionsAsTheyAre) {
  const ScopedPath path(PathWithHelper("printf '%s|' \"$@\" >&2; exit 3"));
  Mount mount = ReadOnly();
  mount.options = {"ro", "uidmapping=0:1:2"};
  mount.source = "it's; a 'source'";
  EXPECT_THAT(MountAll({&mount, 1}, target()),
              StatusIs(StatusCode::kFailedPrecondition,
                       HasSubstr("ended with 3: it's; a 'source'|" + target() +
                                 "|-o|ro|-o|uidmapping=0:1:2|-t|fuse-overlayfs|")));
}

TEST_F(MountHelperMountTest, TellsWhatTheHelperSaidLast) {
  const ScopedPath path(PathWithHelper("echo first >&2; echo 'the reason' >&2; exit 1"));
  const Mount mount = ReadOnly();
  EXPECT_THAT(
      MountAll({&mount, 1}, target()),
      StatusIs(StatusCode::kFailedPrecondition, AllOf(HasSubstr("mount fuse3.fuse-overlayfs on"),
                                                      HasSubstr("ended with 1: the reason"))));
}

TEST_F(MountHelperMountTest, SuccessWithoutAMountIsAFailure) {
  const ScopedPath path(PathWithHelper("exit 0"));
  const Mount mount = ReadOnly();
  EXPECT_THAT(MountAll({&mount, 1}, target()),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("nothing is mounted")));
}

TEST_F(MountHelperMountTest, NamesWhatIsNotInstalled) {
  const ScopedPath path(dir_.Join("bin"));
  const Mount mount = ReadOnly();
  EXPECT_THAT(MountAll({&mount, 1}, target()),
              StatusIs(StatusCode::kFailedPrecondition,
                       HasSubstr("neither mount.fuse3 nor fuse-overlayfs is installed")));
}

// It holds the write end of the fifo for as long as it lives, and so does its child.
TEST_F(MountHelperMountTest, KillsAHelperThatHangsWithItsChildren) {
  const std::string fifo = dir_.Join("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const UniqueFd alive(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  const ScopedPath path(PathWithHelper("exec 9>" + fifo + "; echo x >&9; sleep 1000 & wait"));
  EXPECT_THAT(MountByHelper(ReadOnly(), target(), std::chrono::milliseconds(500)),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("was not done after 500 ms")));
  (void)::fcntl(alive.get(), F_SETFL, 0);
  char byte = 0;
  while (::read(alive.get(), &byte, 1) == 1) {  // ends when nobody can write any more
  }
}

TEST_F(MountHelperMountTest, LeavesNoMountOfAHelperThatHangsBehindIt) {
  const ScopedPath path(PathWithHelper("fuse-overlayfs -f -o \"$4\" \"$2\" & sleep 1000 & wait"));
  EXPECT_THAT(MountByHelper(ReadOnly(), target(), std::chrono::milliseconds(1500)),
              StatusIs(StatusCode::kDeadlineExceeded));
}

TEST_F(MountHelperMountTest, ProbeFindsThatItWorks) {
  EXPECT_THAT(ProbeFuseOverlay(dir_.path()), IsOk());
}

TEST_F(MountHelperMountTest, ProbeNamesTheProgramThatIsMissing) {
  const ScopedPath path(dir_.Join("bin"));
  EXPECT_THAT(ProbeFuseOverlay(dir_.path()),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("fuse-overlayfs not installed")));
}

TEST_F(MountHelperMountTest, ProbeNamesTheHelperThatIsMissing) {
  const std::string program = FindProgram("fuse-overlayfs").value_or("");
  ASSERT_EQ(::symlink(program.c_str(), dir_.Join("bin/fuse-overlayfs").c_str()), 0);
  const ScopedPath path(dir_.Join("bin"));
  EXPECT_THAT(ProbeFuseOverlay(dir_.path()),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("mount.fuse3")));
}

TEST_F(MountHelperMountTest, ProbeTellsWhyTheMountFailed) {
  const ScopedPath path(PathWithHelper("echo 'no /dev/fuse' >&2; exit 1"));
  EXPECT_THAT(ProbeFuseOverlay(dir_.path()),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("fuse-overlayfs not functional, make sure running with "
                                       "kernel >= 4.18: "),
                             HasSubstr("no /dev/fuse"))));
}

}  // namespace
}  // namespace strata
