// SPDX-License-Identifier: Apache-2.0
//
// Layers that the kernel reads while they fill.
#include "snapshotters/lazy/erofs_presenter.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "snapshotters/os/mount_ops.h"
#include "tests/snapshotters/lazy/erofs_fixture.h"

namespace strata {
namespace {

using testing::Complete;
using testing::ErofsMountFixture;
using testing::Eventually;
using testing::FakeFdStore;
using testing::File;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::NamesIn;
using testing::NidOf;
using testing::PatternFile;
using testing::PatternFiller;
using testing::ReadAt;
using testing::StatusIs;

constexpr size_t kFileBytes = 3'000'000;

class ErofsPresenterMountTest : public ErofsMountFixture {
 protected:
  // The layer's mount reads the file's bytes anew.
  static void ForgetPages(const std::string& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  }
};

// --- reads

TEST_F(ErofsPresenterMountTest, AColdReadFindsTheBytes) {
  const auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  int error = 0;
  EXPECT_TRUE(ReadAt(root + "/f", 0, kFileBytes, &error) == PatternFile(layer->image(), "f"));
  EXPECT_EQ(error, 0);
  EXPECT_GT(presenter_->counters().waited, 0U);
  EXPECT_EQ(presenter_->counters().denied, 0U);
}

// How long an event is then depends on how the kernel's memory lies: at most 16 pieces of it.
TEST_F(ErofsPresenterMountTest, TheKernelReadsFarAhead) {
  constexpr const char* kSettings = "/sys/class/bdi";
  const std::vector<std::string> before = NamesIn(kSettings);
  (void)Show(Make({File("f", kFileBytes)}));
  int raised = 0;
  for (const std::string& name : NamesIn(kSettings)) {
    const bool is_new = std::find(before.begin(), before.end(), name) == before.end();
    const UniqueFd file(
        ::open((std::string(kSettings) + "/" + name + "/read_ahead_kb").c_str(), O_RDONLY));
    std::array<char, 16> text{};
    if (is_new && name.starts_with("erofs-") &&
        ::read(file.get(), text.data(), text.size() - 1) > 0) {
      raised += std::string_view(text.data()) == "1024\n" ? 1 : 0;
    }
  }
  EXPECT_GE(raised, 1);
}

TEST_F(ErofsPresenterMountTest, ServesEightReadersAtOnce) {
  const auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kLater);
  const std::string content = PatternFile(layer->image(), "f");
  std::atomic<int> good{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 8; ++i) {
    readers.emplace_back([&] { good += ReadAt(root + "/f", 0, kFileBytes) == content ? 1 : 0; });
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(good, 8);
}

TEST_F(ErofsPresenterMountTest, AMappingFindsTheBytes) {
  const auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kLater);
  const UniqueFd fd(::open((root + "/f").c_str(), O_RDONLY | O_CLOEXEC));
  void* mapping = ::mmap(nullptr, kFileBytes, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  ASSERT_NE(mapping, MAP_FAILED);
  EXPECT_TRUE(std::string(static_cast<const char*>(mapping), kFileBytes) ==
              PatternFile(layer->image(), "f"));
  ASSERT_EQ(::munmap(mapping, kFileBytes), 0);
}

TEST_F(ErofsPresenterMountTest, AProgramRunsFromIt) {
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd program, OpenFile("/bin/true", O_RDONLY));
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadAll(program.get(), "true", 1 << 24));
  const auto layer = Make({{.name = "true", .size = bytes.size(), .mode = 0755}});
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kNever);
  std::future<int> run = std::async(
      std::launch::async, [command = root + "/true"] { return std::system(command.c_str()); });
  ASSERT_TRUE(Eventually([&] { return filler_.kept() > 0; }));
  STRATA_ASSERT_OK_AND_ASSIGN(const uint64_t at,
                              layer->image().tree().DataOffset(NidOf(layer->image(), "true")));
  ASSERT_EQ(::pwrite(layer->image().image_fd(), bytes.data(), bytes.size(), static_cast<off_t>(at)),
            static_cast<ssize_t>(bytes.size()));
  EXPECT_TRUE(Eventually([&] {
    filler_.CallBack(OkStatus());
    return run.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }));
  EXPECT_EQ(run.get(), 0);
}

TEST_F(ErofsPresenterMountTest, AReadThatFailsSucceedsLater) {
  const auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kFail);
  int error = 0;
  EXPECT_EQ(ReadAt(root + "/f", 0, 100, &error), "");
  EXPECT_EQ(error, EIO);
  EXPECT_GT(presenter_->counters().denied, 0U);
  filler_.SetMode(PatternFiller::Mode::kAtOnce);
  EXPECT_TRUE(ReadAt(root + "/f", 0, kFileBytes, &error) == PatternFile(layer->image(), "f"));
  EXPECT_EQ(error, 0);
}

TEST_F(ErofsPresenterMountTest, AnOverlayOfLayersFindsTheBytes) {
  const auto lower = Make({File("a", kFileBytes), File("hidden")});
  const auto upper = Make({File("b", kFileBytes), File(".wh.hidden")});
  const std::string lower_root = Show(lower);
  const Mount overlay{"overlay", "overlay", "", {"lowerdir=" + Show(upper) + ":" + lower_root}};
  ASSERT_EQ(::mkdir(dir_.Join("merged").c_str(), 0700), 0);
  STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount mount,
                              ScopedMount::Mount({&overlay, 1}, dir_.Join("merged")));
  EXPECT_EQ(NamesIn(mount.target()).size(), 4U);  // . .. a b
  EXPECT_TRUE(ReadAt(mount.target() + "/a", 0, kFileBytes) == PatternFile(lower->image(), "a"));
  EXPECT_TRUE(ReadAt(mount.target() + "/b", 0, kFileBytes) == PatternFile(upper->image(), "b"));
}

TEST_F(ErofsPresenterMountTest, WhoeverReadsTheImageItselfWaitsToo) {
  const auto layer = Make({File("f", kFileBytes)});
  (void)Show(layer);
  const LayerImage& image = layer->image();
  STRATA_ASSERT_OK_AND_ASSIGN(const uint64_t at, image.tree().DataOffset(NidOf(image, "f")));
  EXPECT_TRUE(ReadAt(dir_.Join("layers/7/image"), at, kFileBytes) == PatternFile(image, "f"));
}

TEST_F(ErofsPresenterMountTest, MoreMayWaitThanTheJournalHolds) {
  presenter_.reset();
  store_.Drop(ErofsPresenter::kGroupName);
  ErofsOptions options = Options();
  options.most_waiting = 2;
  options.threads = 2;
  STRATA_ASSERT_OK_AND_ASSIGN(presenter_,
                              ErofsPresenter::Start(options, store_, filler_, *reserve_));
  const auto layer = Make({File("a", 4096), File("b", 4096), File("c", 4096), File("d", 4096)});
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kNever);
  std::atomic<int> done{0};
  std::vector<std::thread> readers;
  for (const char* name : {"/a", "/b", "/c", "/d"}) {
    readers.emplace_back([&, path = root + name] {
      (void)ReadAt(path, 0, 1);
      ++done;
    });
  }
  EXPECT_TRUE(Eventually([&] { return filler_.kept() == 2; }));
  EXPECT_TRUE(Eventually([&] {
    filler_.CallBack(OkStatus());
    return done == 4;
  }));
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(presenter_->counters().denied, 0U);
}

// --- how layers come and go

TEST_F(ErofsPresenterMountTest, ACompleteLayerRaisesNoEvents) {
  const auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  EXPECT_EQ(presenter_->counters().marked, 1U);
  (void)ReadAt(root + "/f", 0, kFileBytes);
  Complete(layer->image());
  presenter_->Complete(*layer);
  EXPECT_EQ(presenter_->counters().marked, 0U);
  EXPECT_EQ(reserve_->reserved(), 0U);

  const uint64_t events = presenter_->counters().events;
  ForgetPages(root + "/f");
  EXPECT_TRUE(ReadAt(root + "/f", 0, kFileBytes) == PatternFile(layer->image(), "f"));
  EXPECT_EQ(presenter_->counters().events, events);
}

TEST_F(ErofsPresenterMountTest, ALayerThatIsCompleteIsShownWithoutAMark) {
  const auto layer = Make({File("f", kFileBytes)});
  Complete(layer->image());
  ASSERT_THAT(layer->image().Persist(), IsOk());
  const std::string root = Show(layer);
  EXPECT_EQ(presenter_->counters().marked, 0U);
  EXPECT_TRUE(ReadAt(root + "/f", 0, kFileBytes) == PatternFile(layer->image(), "f"));
  EXPECT_TRUE(presenter_->Withdraw(7));
}

TEST_F(ErofsPresenterMountTest, CoversWhatIsThere) {
  const std::string root = Show(Make({File("old")}));
  const auto layer = Make({File("new", kFileBytes)});
  ASSERT_THAT(presenter_->Show(layer, root), IsOk());
  EXPECT_EQ(NamesIn(root).size(), 3U);
  EXPECT_TRUE(ReadAt(root + "/new", 0, kFileBytes) == PatternFile(layer->image(), "new"));
}

TEST_F(ErofsPresenterMountTest, ALayerInUseIsNotWithdrawn) {
  const auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  EXPECT_FALSE(presenter_->Withdraw(7));
  UniqueFd open(::open((root + "/f").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_THAT(Unmount(root, /*lazy=*/true), IsOk());
  EXPECT_FALSE(presenter_->Withdraw(7));
  std::string read(kFileBytes, '\0');
  EXPECT_EQ(::pread(open.get(), read.data(), read.size(), 0), static_cast<ssize_t>(kFileBytes));
  EXPECT_TRUE(read == PatternFile(layer->image(), "f"));

  open.Reset();
  EXPECT_TRUE(Eventually([&] { return presenter_->Withdraw(7); }));
  EXPECT_EQ(presenter_->counters().marked, 0U);
  EXPECT_EQ(reserve_->reserved(), 0U);
}

TEST_F(ErofsPresenterMountTest, AWithdrawnLayerIsLetGo) {
  auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  (void)ReadAt(root + "/f", 0, kFileBytes);
  ASSERT_THAT(Unmount(root, /*lazy=*/false), IsOk());
  EXPECT_TRUE(Eventually([&] { return presenter_->Withdraw(7); }));
  const std::weak_ptr<FillLayer> kept = layer;
  layer.reset();
  EXPECT_TRUE(Eventually([&] { return kept.expired(); }));
  EXPECT_TRUE(presenter_->Withdraw(7));
}

TEST_F(ErofsPresenterMountTest, AFailedShowLeavesNothing) {
  const auto layer = Make({File("f", kFileBytes)});
  EXPECT_THAT(presenter_->Show(layer, dir_.Join("missing")), StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(presenter_->counters().marked, 0U);
  EXPECT_EQ(reserve_->reserved(), 0U);
}

TEST_F(ErofsPresenterMountTest, ALayerWithoutRoomIsNotShown) {
  presenter_.reset();
  const std::string small = dir_.Join("small");
  ASSERT_EQ(::mkdir(small.c_str(), 0700), 0);
  const Mount tmpfs{"tmpfs", "tmpfs", "", {"size=1m"}};
  ASSERT_THAT(MountAll({&tmpfs, 1}, small), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(reserve_, SpaceReserve::Open(small + "/reserve"));
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  const auto layer = Make({File("f", kFileBytes)});
  const std::string target = PathOf(*layer);
  ASSERT_EQ(::mkdir(target.c_str(), 0700), 0);
  EXPECT_THAT(presenter_->Show(layer, target), StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(presenter_->counters().marked, 0U);
  EXPECT_EQ(NamesIn(target).size(), 2U);
  presenter_.reset();
  reserve_.reset();
}

TEST_F(ErofsPresenterMountTest, NewLayersMayBeOthersToShow) {
  presenter_.reset();
  ErofsOptions options = Options();
  options.show_new = false;
  STRATA_ASSERT_OK_AND_ASSIGN(presenter_,
                              ErofsPresenter::Start(options, store_, filler_, *reserve_));
  EXPECT_THAT(presenter_->Show(Make({File("f")}), dir_.Join("l")),
              StatusIs(StatusCode::kUnimplemented));
}

// --- beginning

TEST_F(ErofsPresenterMountTest, WithoutAnybodyWhoKeepsItIsRefused) {
  FakeFdStore none(/*available=*/false);
  EXPECT_THAT(ErofsPresenter::Start(Options(), none, filler_, *reserve_),
              StatusIs(StatusCode::kUnimplemented, HasSubstr("nobody would keep")));
}

TEST_F(ErofsPresenterMountTest, KeepsGroupAndJournal) {
  EXPECT_TRUE(store_.Take(ErofsPresenter::kGroupName).valid());
  EXPECT_TRUE(store_.Take(ErofsPresenter::kJournalName).valid());
  EXPECT_EQ(store_.size(), 2U);
  EXPECT_FALSE(presenter_->inherited());
  EXPECT_TRUE(presenter_->stays());
}

}  // namespace
}  // namespace strata
