// SPDX-License-Identifier: Apache-2.0
//
// FUSE mounts that outlive the presenter which made them: what a successor goes on with, and when
// it starts anew.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "snapshotters/lazy/fuse_connection.h"
#include "snapshotters/lazy/fuse_layers.h"
#include "snapshotters/os/mount_ops.h"
#include "tests/snapshotters/lazy/fuse_fixture.h"
#include "tests/support/fake_fd_store.h"

namespace strata {
namespace {

using testing::Eventually;
using testing::Exists;
using testing::FakeFdStore;
using testing::File;
using testing::FuseMountFixture;
using testing::IsOk;
using testing::NamesIn;
using testing::NidOf;
using testing::PatternFile;
using testing::PatternFiller;
using testing::ReadAt;
using testing::StatusIs;

constexpr size_t kFileBytes = 300'000;

// Does not ask the server, which may be dead.
dev_t DeviceOf(const std::string& path) {
  struct statx attributes {};
  EXPECT_EQ(::statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC, STATX_TYPE, &attributes), 0);
  return ::makedev(attributes.stx_dev_major, attributes.stx_dev_minor);
}

class FuseSuccessionMountTest : public FuseMountFixture {
 protected:
  void SetUp() override {
    FuseMountFixture::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) {
      presenter_.reset();
      Start();
      if (!presenter_->stays()) {
        GTEST_SKIP() << "kernel lacks FUSE_NOTIFY_RESEND";
      }
    }
  }

  void Start() { Start(store_); }
  void Start(FdStore& store) {
    STRATA_ASSERT_OK_AND_ASSIGN(
        presenter_, FusePresenter::Start(
                        {.directory = dir_.Join("fuse"), .threads = 1, .fds = &store}, filler_));
  }

  // As a start does, of a layer that is shown on `target`.
  bool Resume(const std::shared_ptr<FillLayer>& layer, const std::string& target) {
    const FoundMount top{"fuse.strata", DeviceOf(target)};
    return presenter_->Resume(layer, &top);
  }

  // The next process, for one layer.
  void Succeed(const std::shared_ptr<FillLayer>& layer, const std::string& target) {
    presenter_.reset();
    Start();
    EXPECT_TRUE(Resume(layer, target));
    presenter_->Settled();
  }

  // Puts `content` in place of what was kept of the plain mount's first request.
  void KeepInit(const std::string& content) {
    const UniqueFd file(::memfd_create("init", MFD_CLOEXEC));
    ASSERT_EQ(::write(file.get(), content.data(), content.size()),
              static_cast<ssize_t>(content.size()));
    ASSERT_THAT(store_.Keep("fuse-p-init", file.get()), IsOk());
  }
  std::string KeptInit() {
    const UniqueFd file = store_.Take("fuse-p-init");
    std::string content(4096, '\0');
    const ssize_t bytes = ::pread(file.get(), content.data(), content.size(), 0);
    content.resize(bytes < 0 ? 0 : static_cast<size_t>(bytes));
    return content;
  }

  // A successor that could not go on: the old mounts are dead, not stuck, and new ones work.
  void ExpectNewStart(const std::shared_ptr<FillLayer>& layer, const std::string& target,
                      const UniqueFd& open) {
    const FoundMount top{"fuse.strata", DeviceOf(target)};
    ASSERT_NO_FATAL_FAILURE(Start());
    EXPECT_FALSE(presenter_->Resume(layer, &top));
    presenter_->Settled();
    char byte = 0;
    EXPECT_EQ(::pread(open.get(), &byte, 1, 0), -1);
    EXPECT_EQ(errno, ENOTCONN);
    ASSERT_THAT(presenter_->Show(layer, target), IsOk());
    EXPECT_TRUE(ReadAt(target + "/f", 0, kFileBytes) == PatternFile(layer->image(), "f"));
    EXPECT_TRUE(presenter_->stays());
  }

  FakeFdStore store_;
};

UniqueFd Open(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

// --- a clean end

TEST_F(FuseSuccessionMountTest, AnEndLeavesTheMount) {
  const std::string root = Show({File("f")});
  const dev_t mounted = DeviceOf(root);
  presenter_.reset();
  EXPECT_EQ(DeviceOf(root), mounted);
  EXPECT_EQ(DeviceOf(dir_.Join("fuse/p")), mounted);
  EXPECT_EQ(store_.size(), 2U);
}

TEST_F(FuseSuccessionMountTest, ASuccessorServesWhatIsShownAndOpen) {
  auto layer = Make({File("f", kFileBytes), File("d/g", kFileBytes)});
  const std::string root = Show(layer);
  const UniqueFd open = Open(root + "/f");
  ASSERT_NO_FATAL_FAILURE(Succeed(layer, root));
  std::string read(kFileBytes, '\0');
  EXPECT_EQ(::pread(open.get(), read.data(), read.size(), 0), static_cast<ssize_t>(kFileBytes));
  EXPECT_TRUE(read == PatternFile(layer->image(), "f"));
  EXPECT_TRUE(ReadAt(root + "/d/g", 0, kFileBytes) == PatternFile(layer->image(), "d/g"));
  EXPECT_TRUE(presenter_->stays());
}

TEST_F(FuseSuccessionMountTest, BothMountsGoOn) {
  auto layer = Make({{.name = "f", .size = 10, .xattrs = {{"user.a", "value"}}}});
  const std::string root = Show(layer);
  ASSERT_NE(DeviceOf(root), DeviceOf(dir_.Join("fuse/p")));
  EXPECT_EQ(store_.size(), 4U);
  ASSERT_NO_FATAL_FAILURE(Succeed(layer, root));
  char value[8];
  EXPECT_EQ(::getxattr((root + "/f").c_str(), "user.a", value, sizeof(value)), 5);
  EXPECT_EQ(ReadAt(root + "/f", 0, 100).size(), 10U);
}

TEST_F(FuseSuccessionMountTest, AReadThatWaitedIsAnsweredByTheSuccessor) {
  auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kNever);
  int error = 0;
  std::string read;
  std::thread reader([&] { read = ReadAt(root + "/f", 0, kFileBytes, &error); });
  EXPECT_TRUE(Eventually([&] { return filler_.kept() > 0; }));
  presenter_.reset();
  filler_.CallBack(MakeStatus(StatusCode::kCancelled, "the end"));  // comes too late
  filler_.SetMode(PatternFiller::Mode::kAtOnce);
  Succeed(layer, root);
  reader.join();
  EXPECT_EQ(error, 0);
  EXPECT_TRUE(read == PatternFile(layer->image(), "f"));
  EXPECT_EQ(presenter_->counters().errors, 0U);
}

TEST_F(FuseSuccessionMountTest, AReadThatWasInterruptedIsAnsweredByTheSuccessor) {
  auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  presenter_.reset();
  const pid_t reader = ::fork();
  if (reader == 0) {
    (void)::close_range(3, ~0U, 0);
    (void)::signal(SIGUSR1, [](int) {});
    const bool right = ReadAt(root + "/f", 0, kFileBytes) == PatternFile(layer->image(), "f");
    ::_exit(right ? 0 : 1);
  }
  ASSERT_NO_FATAL_FAILURE(Start());
  filler_.SetMode(PatternFiller::Mode::kNever);
  EXPECT_TRUE(Resume(layer, root));
  presenter_->Settled();
  EXPECT_TRUE(Eventually([&] { return filler_.kept() > 0; }));
  (void)::kill(reader, SIGUSR1);
  EXPECT_FALSE(Exists(root + "/missing"));  // behind the interrupt
  filler_.SetMode(PatternFiller::Mode::kAtOnce);
  Succeed(layer, root);
  int status = -1;
  EXPECT_EQ(::waitpid(reader, &status, 0), reader);
  EXPECT_EQ(status, 0);
}

TEST_F(FuseSuccessionMountTest, ManySuccessorsLeaveNoDescriptors) {
  auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  ASSERT_NO_FATAL_FAILURE(Succeed(layer, root));
  const size_t before = NamesIn("/proc/self/fd").size();
  for (int i = 0; i < 10; ++i) {
    ASSERT_NO_FATAL_FAILURE(Succeed(layer, root));
    ASSERT_EQ(ReadAt(root + "/f", static_cast<uint64_t>(i) * 20'000, 100).size(), 100U);
  }
  EXPECT_EQ(NamesIn("/proc/self/fd").size(), before);
}

// --- before all layers are known

TEST_F(FuseSuccessionMountTest, RequestsWaitForLayersThatAreNotKnownYet) {
  auto layer = Make({File("f", 10)});
  const std::string root = Show(layer);
  const UniqueFd device = store_.Take("fuse-p");
  presenter_.reset();
  std::string read;
  std::thread reader([&] { read = ReadAt(root + "/f", 0, 10); });
  pollfd requests{.fd = device.get(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&requests, 1, 60'000), 1);
  Start();
  // A later request, on the same thread: the reader's has been read.
  EXPECT_EQ(NamesIn(Show({File("other")})).size(), 3U);
  EXPECT_TRUE(Resume(layer, root));
  presenter_->Settled();
  reader.join();
  EXPECT_TRUE(read == PatternFile(layer->image(), "f"));
}

TEST_F(FuseSuccessionMountTest, ALayerThatDoesNotComeFailsWhenAllAreKnown) {
  const std::string root = Show({File("f", 10)});
  presenter_.reset();
  ASSERT_NO_FATAL_FAILURE(Start());
  presenter_->Settled();
  int error = 0;
  struct stat attributes {};
  error = ::lstat((root + "/f").c_str(), &attributes) == 0 ? 0 : errno;
  EXPECT_EQ(error, EIO);
  EXPECT_FALSE(Exists(dir_.Join("fuse/p/8")));
}

TEST_F(FuseSuccessionMountTest, AnEndBeforeAllAreKnownLeavesEverything) {
  auto layer = Make({File("f", 10)});
  const std::string root = Show(layer);
  presenter_.reset();
  std::string read;
  std::thread reader([&] { read = ReadAt(root + "/f", 0, 10); });
  Start();
  Succeed(layer, root);
  reader.join();
  EXPECT_TRUE(read == PatternFile(layer->image(), "f"));
}

TEST_F(FuseSuccessionMountTest, AMountOfSomethingElseIsNotResumed) {
  auto layer = Make({File("f", 10)});
  const std::string root = Show(layer);
  const UniqueFd open = Open(root + "/f");
  presenter_.reset();
  ASSERT_NO_FATAL_FAILURE(Start());
  const FoundMount other{"erofs", DeviceOf("/")};
  EXPECT_FALSE(presenter_->Resume(layer, &other));
  EXPECT_FALSE(presenter_->Resume(layer, nullptr));
  presenter_->Settled();
  char byte = 0;
  EXPECT_EQ(::pread(open.get(), &byte, 1, 0), 1) << "what is open is served";
}

// --- layers that go

TEST_F(FuseSuccessionMountTest, AResumedLayerIsServedUntilItsFilesAreClosed) {
  auto layer = Make({File("f", kFileBytes), File("d/e/g", kFileBytes)});
  const std::string root = Show(layer);
  EXPECT_EQ(NamesIn(root + "/d/e").size(), 3U);
  UniqueFd open = Open(root + "/d/e/g");
  ASSERT_NO_FATAL_FAILURE(Succeed(layer, root));
  const std::string content = PatternFile(layer->image(), "d/e/g");
  const std::weak_ptr<FillLayer> kept = layer;
  layer.reset();
  ASSERT_THAT(Unmount(root, /*lazy=*/true), IsOk());
  EXPECT_TRUE(presenter_->Withdraw(7));
  std::string read(kFileBytes, '\0');
  EXPECT_EQ(::pread(open.get(), read.data(), read.size(), 0), static_cast<ssize_t>(kFileBytes));
  EXPECT_TRUE(read == content);
  EXPECT_FALSE(kept.expired());
}

TEST_F(FuseSuccessionMountTest, AResumedLayerIsLetGoWithItsTopDirectory) {
  auto layer = Make({File("f")});
  const uint64_t root = layer->image().tree().root();
  const uint64_t nid = NidOf(layer->image(), "f");
  FuseLayers layers;
  layers.StopCounting();
  EXPECT_TRUE(layers.Add(layer));
  layers.Forget(7, nid, 1000);  // look-ups that a predecessor has answered
  layers.Forget(7, root, 1);
  EXPECT_NE(layers.Find(7), nullptr) << "nobody has withdrawn it";
  EXPECT_NE(layers.Withdraw(7), nullptr);
  EXPECT_EQ(layers.Enter(7), nullptr);
  layers.Forget(7, nid, 1000);
  EXPECT_NE(layers.Find(7), nullptr);
  layers.Forget(7, root, 1);
  EXPECT_EQ(layers.Find(7), nullptr);
}

TEST_F(FuseSuccessionMountTest, AResumedLayerThatNobodyUsesIsLetGo) {
  auto layer = Make({File("f", kFileBytes), File("d/g")});
  const std::string root = Show(layer);
  EXPECT_EQ(NamesIn(root + "/d").size(), 3U);
  ASSERT_NO_FATAL_FAILURE(Succeed(layer, root));
  ASSERT_THAT(Unmount(root, /*lazy=*/false), IsOk());
  const std::weak_ptr<FillLayer> kept = layer;
  layer.reset();
  EXPECT_TRUE(presenter_->Withdraw(7));
  EXPECT_TRUE(Eventually([&] { return kept.expired(); }));
  EXPECT_TRUE(presenter_->Withdraw(7));
}

TEST_F(FuseSuccessionMountTest, ALayerThatTheKernelHasForgottenIsLetGoAtOnce) {
  auto layer = Make({File("f")});
  presenter_.reset();
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_FALSE(presenter_->Resume(layer, nullptr));
  presenter_->Settled();
  const std::weak_ptr<FillLayer> kept = layer;
  layer.reset();
  EXPECT_TRUE(presenter_->Withdraw(7));
  EXPECT_TRUE(kept.expired());
}

// --- what cannot go on

// Each changes what a successor finds; then it has to start anew.
struct Damage {
  const char* name;
  std::function<std::string(std::string)> change;  // of what was kept with the device
};

class FuseSuccessionRefusalMountTest : public FuseSuccessionMountTest,
                                       public ::testing::WithParamInterface<Damage> {};

constexpr size_t kHeaderBytes = 16;  // before the kernel's request

template <typename T>
std::string Replace(std::string content, size_t offset, T value) {
  return content.replace(offset, sizeof(value), reinterpret_cast<const char*>(&value),
                         sizeof(value));
}

constexpr size_t kInitAt = kHeaderBytes + sizeof(fuse_in_header);

const Damage kDamages[] = {
    {"Empty", [](const std::string& /*content*/) { return std::string(); }},
    {"Short", [](const std::string& content) { return content.substr(0, kHeaderBytes + 10); }},
    {"Cut", [](const std::string& content) { return content.substr(0, content.size() - 4); }},
    {"Long", [](const std::string& content) { return content + std::string(5000, 'x'); }},
    {"OtherVersion", [](std::string content) { return Replace(std::move(content), 7, '0'); }},
    {"OtherMount",
     [](std::string content) { return Replace(std::move(content), 8, uint64_t{12345}); }},
    {"NoInit",
     [](std::string content) {
       return Replace(std::move(content), kHeaderBytes + offsetof(fuse_in_header, opcode),
                      uint32_t{FUSE_LOOKUP});
     }},
    {"OtherProtocol",
     [](std::string content) { return Replace(std::move(content), kInitAt, uint32_t{8}); }},
    {"KernelWithoutResend",
     [](std::string content) {
       return Replace(std::move(content), kInitAt + offsetof(fuse_init_in, flags2), uint32_t{0});
     }},
};

TEST_P(FuseSuccessionRefusalMountTest, StartsAnew) {
  auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  const UniqueFd open = Open(root + "/f");
  presenter_.reset();
  ASSERT_NO_FATAL_FAILURE(KeepInit(GetParam().change(KeptInit())));
  ExpectNewStart(layer, root, open);
}

INSTANTIATE_TEST_SUITE_P(Damages, FuseSuccessionRefusalMountTest, ::testing::ValuesIn(kDamages),
                         [](const auto& about) { return about.param.name; });

TEST_F(FuseSuccessionMountTest, StartsAnewWithoutTheFirstRequest) {
  auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  const UniqueFd open = Open(root + "/f");
  presenter_.reset();
  store_.Drop("fuse-p-init");
  ExpectNewStart(layer, root, open);
}

TEST_F(FuseSuccessionMountTest, StartsAnewWithADeviceThatIsNone) {
  auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  const UniqueFd open = Open(root + "/f");
  presenter_.reset();
  ASSERT_THAT(store_.Keep("fuse-p", Open("/dev/null").get()), IsOk());
  ExpectNewStart(layer, root, open);
}

TEST_F(FuseSuccessionMountTest, StartsAnewAfterAnAbort) {
  auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  const UniqueFd open = Open(root + "/f");
  presenter_.reset();
  const UniqueFd busy(::open(dir_.Join("fuse/p").c_str(), O_PATH | O_CLOEXEC));
  ASSERT_EQ(::umount2(dir_.Join("fuse/p").c_str(), MNT_FORCE), -1);  // aborts (mount(2))
  ASSERT_EQ(errno, EBUSY);
  ExpectNewStart(layer, root, open);
}

TEST_F(FuseSuccessionMountTest, StartsAnewWhereTheMountIsGone) {
  auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  const UniqueFd open = Open(root + "/f");
  presenter_.reset();
  ASSERT_THAT(Unmount(dir_.Join("fuse/p"), /*lazy=*/true), IsOk());
  ExpectNewStart(layer, root, open);
}

TEST_F(FuseSuccessionMountTest, AnEndThatLeavesNothingEndsTheMount) {
  presenter_.reset();
  class Refusing final : public FdStore {
   public:
    [[nodiscard]] bool available() const override { return true; }
    UniqueFd Take(const std::string& /*name*/) override { return {}; }
    Status Keep(const std::string& /*name*/, int /*fd*/) override {
      return MakeStatus(StatusCode::kUnavailable, "keep: no answer");
    }
    void Drop(const std::string& /*name*/) override {}
  };
  Refusing store;
  ASSERT_NO_FATAL_FAILURE(Start(store));
  EXPECT_FALSE(presenter_->stays());
  const std::string root = Show({File("f", 10)});
  EXPECT_EQ(ReadAt(root + "/f", 0, 10).size(), 10U);
  presenter_.reset();
  EXPECT_EQ(DeviceOf(dir_.Join("fuse/p")), DeviceOf(dir_.Join("fuse")));
}

TEST_F(FuseSuccessionMountTest, NobodyWhoKeepsIsAsked) {
  presenter_.reset();
  FakeFdStore unavailable(/*available=*/false);
  ASSERT_NO_FATAL_FAILURE(Start(unavailable));
  EXPECT_FALSE(presenter_->stays());
  EXPECT_EQ(unavailable.size(), 0U);
}

// The predecessor died between keeping the connection and its first answer.
TEST_F(FuseSuccessionMountTest, ASuccessorAnswersTheFirstRequest) {
  presenter_.reset();
  store_.Drop("fuse-p");
  store_.Drop("fuse-p-init");
  const std::string place = dir_.Join("fuse/p");
  while (Unmount(place, /*lazy=*/true).ok()) {
  }
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const FuseConnection opened, FuseConnection::Open(place));
    ASSERT_THAT(opened.Keep(store_, "fuse-p"), IsOk());
  }
  const dev_t mounted = DeviceOf(place);
  ASSERT_NO_FATAL_FAILURE(Start());
  presenter_->Settled();
  EXPECT_EQ(DeviceOf(place), mounted);
  EXPECT_EQ(ReadAt(Show({File("f", 10)}) + "/f", 0, 10).size(), 10U);
}

}  // namespace
}  // namespace strata
