// SPDX-License-Identifier: Apache-2.0
//
// The FUSE presenter's mounts: how they come, what they cover, and how they end.
#include "snapshotters/lazy/fuse_presenter.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "snapshotters/os/mount_ops.h"
#include "tests/snapshotters/lazy/fuse_fixture.h"

namespace strata {
namespace {

using testing::Dir;
using ::testing::ElementsAre;
using testing::Eventually;
using testing::Exists;
using testing::File;
using testing::FuseMountFixture;
using testing::IsOk;
using testing::NamesIn;
using testing::PatternFile;
using testing::PatternFiller;
using testing::ReadAt;
using testing::StatOf;
using testing::StatusIs;
using ::testing::UnorderedElementsAre;

class FusePresenterMountTest : public FuseMountFixture {};

TEST_F(FusePresenterMountTest, ANumberThatIsUnknownIsNotRemembered) {
  const std::string top = dir_.Join("fuse/p");
  EXPECT_FALSE(Exists(top + "/7"));
  (void)Show({File("f")});
  EXPECT_TRUE(Exists(top + "/7/f"));
  EXPECT_FALSE(Exists(top + "/07"));
  EXPECT_FALSE(Exists(top + "/+7"));
  EXPECT_THAT(NamesIn(top), ElementsAre());
}

TEST_F(FusePresenterMountTest, CoversWhatIsThere) {
  const std::string target = Show({File("old")});
  ASSERT_THAT(presenter_->Show(Make({File("new")}), target), IsOk());
  EXPECT_THAT(NamesIn(target), UnorderedElementsAre(".", "..", "new"));
  ASSERT_THAT(Unmount(target, /*lazy=*/false), IsOk());
  EXPECT_THAT(NamesIn(target), UnorderedElementsAre(".", "..", "old"));
}

TEST_F(FusePresenterMountTest, AFailedShowLeavesNothing) {
  auto layer = Make({File("f")});
  EXPECT_THAT(presenter_->Show(layer, dir_.Join("missing")), StatusIs(StatusCode::kNotFound));
  EXPECT_FALSE(Exists(dir_.Join("fuse/p/7")));
  const std::weak_ptr<FillLayer> kept = layer;
  layer.reset();
  EXPECT_TRUE(Eventually([&] { return kept.expired(); }));
}

TEST_F(FusePresenterMountTest, RefusesNumbersThatNodesHaveNoRoomFor) {
  next_number_ = uint64_t{1} << 24;
  EXPECT_THAT(presenter_->Show(Make({File("f")}), Target("t")),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(FusePresenterMountTest, AWithdrawnLayerIsServedUntilItsFilesAreClosed) {
  auto layer = Make({File("f", 100'000), File("d/g")});
  const std::string root = Show(layer);
  EXPECT_EQ(NamesIn(root + "/d").size(), 3U);
  const std::string content = PatternFile(layer->image(), "f");
  UniqueFd open(::open((root + "/f").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_THAT(Unmount(root, /*lazy=*/true), IsOk());
  presenter_->Withdraw(7);
  EXPECT_FALSE(Exists(dir_.Join("fuse/p/7")));
  std::string read(100'000, '\0');
  EXPECT_EQ(::pread(open.get(), read.data(), read.size(), 0), 100'000);
  EXPECT_TRUE(read == content);

  const std::weak_ptr<FillLayer> kept = layer;
  layer.reset();
  EXPECT_FALSE(kept.expired());
}

TEST_F(FusePresenterMountTest, AWithdrawnLayerThatNobodyUsesIsLetGo) {
  auto layer = Make({File("f", 100'000), File("d/g")});
  const std::string root = Show(layer);
  EXPECT_EQ(NamesIn(root + "/d").size(), 3U);
  EXPECT_EQ(ReadAt(root + "/f", 0, 100'000).size(), 100'000U);
  ASSERT_THAT(Unmount(root, /*lazy=*/false), IsOk());
  const std::weak_ptr<FillLayer> kept = layer;
  layer.reset();
  presenter_->Withdraw(7);
  EXPECT_TRUE(Eventually([&] { return kept.expired(); }));
  presenter_->Withdraw(7);
}

TEST_F(FusePresenterMountTest, AnOverlayTakesWhiteoutsAndOpaqueDirectories) {
  const std::string lower = Show({File("gone"), File("kept"), File("d/hidden"), Dir("e")});
  const std::string upper = Show({File(".wh.gone"), File("d/.wh..wh..opq"), File("d/shown")});
  const Mount overlay{"overlay", "overlay", "", {"lowerdir=" + upper + ":" + lower}};
  STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount mount,
                              ScopedMount::Mount({&overlay, 1}, Target("merged")));
  EXPECT_THAT(NamesIn(mount.target()), UnorderedElementsAre(".", "..", "kept", "d", "e"));
  EXPECT_FALSE(Exists(mount.target() + "/gone"));
  EXPECT_THAT(NamesIn(mount.target() + "/d"), UnorderedElementsAre(".", "..", "shown"));
  EXPECT_EQ(ReadAt(mount.target() + "/kept", 0, 10).size(), 10U);
}

TEST_F(FusePresenterMountTest, AnOverlayCopiesUp) {
  const auto layer =
      Make({{.name = "f", .size = 5000, .mode = 0640, .uid = 5, .xattrs = {{"user.a", "b"}}}});
  const std::string lower = Show(layer);
  const Mount overlay{
      "overlay",
      "overlay",
      "",
      {"lowerdir=" + lower, "upperdir=" + Target("upper"), "workdir=" + Target("work")}};
  STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount mount,
                              ScopedMount::Mount({&overlay, 1}, Target("merged")));
  ASSERT_EQ(::chmod((mount.target() + "/f").c_str(), 0600), 0);
  EXPECT_EQ(StatOf(dir_.Join("upper/f")).st_uid, 5U);
  EXPECT_TRUE(ReadAt(dir_.Join("upper/f"), 0, 6000) == PatternFile(layer->image(), "f"));
  EXPECT_EQ(::lgetxattr(dir_.Join("upper/f").c_str(), "user.a", nullptr, 0), 1);
}

// --- beginning and end

TEST_F(FusePresenterMountTest, ItsEndFailsReadsThatWait) {
  const std::string root = Show({File("f", 4096)});
  filler_.SetMode(PatternFiller::Mode::kNever);
  int error = 0;
  std::thread reader([&] { (void)ReadAt(root + "/f", 0, 100, &error); });
  ASSERT_TRUE(Eventually([&] { return filler_.kept() > 0; }));
  presenter_.reset();
  reader.join();
  EXPECT_NE(error, 0);
  filler_.CallBack(OkStatus());  // comes too late, and does nothing
}

TEST_F(FusePresenterMountTest, ItsEndDetachesItsMounts) {
  const std::string root = Show({{.name = "f", .xattrs = {{"user.a", "b"}}}});
  const auto outer = StatOf(dir_.Join("fuse")).st_dev;
  EXPECT_NE(StatOf(dir_.Join("fuse/x")).st_dev, outer);
  presenter_.reset();
  EXPECT_EQ(StatOf(dir_.Join("fuse/x")).st_dev, outer);
  EXPECT_EQ(StatOf(dir_.Join("fuse/p")).st_dev, outer);
  struct stat attributes {};
  EXPECT_EQ(::lstat((root + "/f").c_str(), &attributes), -1);
  EXPECT_EQ(errno, ENOTCONN);
}

size_t OpenFiles() {
  return NamesIn("/proc/self/fd").size();
}

TEST_F(FusePresenterMountTest, ItsEndLeavesNoDescriptors) {
  presenter_.reset();
  const size_t before = OpenFiles();
  for (int round = 0; round < 3; ++round) {
    ASSERT_NO_FATAL_FAILURE(StartPresenter());
    auto layer =
        Make({File("f", 2'000'000), {.name = "x", .size = 10, .xattrs = {{"user.a", "b"}}}});
    const std::string root = Show(layer);
    EXPECT_EQ(ReadAt(root + "/f", 0, 2'000'000).size(), 2'000'000U);
    filler_.SetMode(PatternFiller::Mode::kLater);
    EXPECT_EQ(ReadAt(root + "/x", 0, 10).size(), 10U);
    filler_.SetMode(PatternFiller::Mode::kAtOnce);
    presenter_.reset();
    ASSERT_THAT(Unmount(root, /*lazy=*/true), IsOk());
  }
  // What answered the last read lets go of its layer when it returns.
  EXPECT_TRUE(Eventually([&] { return OpenFiles() == before; })) << OpenFiles() << " of " << before;
}

TEST_F(FusePresenterMountTest, TakesOverFromAPredecessorThatWasKilled) {
  presenter_.reset();
  const auto layer = Make({File("f")});
  const std::string target = Target("t");
  const pid_t child = ::fork();
  if (child == 0) {
    PatternFiller filler;
    const auto predecessor = FusePresenter::Start({.directory = dir_.Join("fuse")}, filler);
    const bool shown = predecessor.ok() && (*predecessor)->Show(layer, target).ok();
    (void)::kill(::getpid(), shown ? SIGKILL : SIGTERM);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(WTERMSIG(status), SIGKILL);
  struct stat attributes {};
  ASSERT_EQ(::stat((target + "/f").c_str(), &attributes), -1);
  ASSERT_EQ(errno, ENOTCONN);

  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  ASSERT_THAT(presenter_->Show(layer, target), IsOk());
  EXPECT_EQ(ReadAt(target + "/f", 0, 10).size(), 10U);
}

TEST_F(FusePresenterMountTest, WorksInAUserNamespace) {
  if (std::system("unshare -Urm true") != 0) {
    GTEST_SKIP() << "kernel lacks user namespaces";
  }
  presenter_.reset();
  const std::string test =
      "unshare -Urm /proc/self/exe --gtest_filter=FuseTreeMountTest.ReadsAnyPartOfAFile:"
      "FuseTreeMountTest.RepeatedQuestionsStayInTheKernel >/dev/null";
  std::array<char, PATH_MAX> self{};
  ASSERT_GT(::readlink("/proc/self/exe", self.data(), self.size() - 1), 0);
  std::string command = test;
  command.replace(command.find("/proc/self/exe"), 14, self.data());
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace strata
