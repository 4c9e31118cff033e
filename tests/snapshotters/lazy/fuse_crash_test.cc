// SPDX-License-Identifier: Apache-2.0
//
// A presenter that is killed again and again while processes read through its mounts: none of them
// sees an error or a wrong byte.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/snapshotters/lazy/fuse_fixture.h"
#include "tests/support/fake_fd_store.h"

namespace strata {
namespace {

using testing::Eventually;
using testing::FakeFdStore;
using testing::FuseMountFixture;
using testing::IsOk;
using testing::Link;
using testing::NamesIn;
using testing::PatternEntry;
using testing::PatternFile;
using testing::PatternFiller;
using testing::ReadLinkOf;

constexpr int kReaders = 8;
constexpr int kKills = 20;
constexpr int kDirectories = 40;
constexpr int kFilesEach = 10;
constexpr uint64_t kFileBytes = 150'000;

// In memory that all processes share.
struct Progress {
  std::atomic<uint64_t> steps{0};
  std::atomic<uint64_t> servers{0};  // that have begun to start
  std::atomic<bool> stop{false};
  std::atomic<bool> failed{false};
  std::array<char, 256> failure{};
};

struct Shown {
  std::shared_ptr<FillLayer> layer;
  std::string root;
  bool has_xattrs = false;
};

class Reader {
 public:
  Reader(const std::vector<Shown>& shown, Progress& progress, unsigned seed)
      : shown_(shown), progress_(progress), random_(seed) {}

  // In a process of its own.
  void Run() {
    while (!progress_.stop && !progress_.failed) {
      Step(shown_[random_() % shown_.size()]);
      progress_.steps.fetch_add(1);
    }
  }

 private:
  void Step(const Shown& shown) {
    const std::string directory = "d" + std::to_string(random_() % kDirectories);
    const std::string file = directory + "/f" + std::to_string(random_() % kFilesEach);
    const std::string path = shown.root + "/" + file;
    switch (random_() % 5) {
      case 0: {  // asked anew each time: nobody has asked for that name
        struct stat attributes {};
        const std::string missing = path + "-" + std::to_string(random_());
        Expect(::lstat(missing.c_str(), &attributes) != 0 && errno == ENOENT, missing);
        return;
      }
      case 1:
        Expect(NamesIn(shown.root + "/" + directory).size() == kFilesEach + 3, directory);
        return;
      case 2:
        Expect(ReadLinkOf(shown.root + "/" + directory + "/link") == "target", directory);
        return;
      case 3:
        if (shown.has_xattrs) {
          char value = 0;
          Expect(::lgetxattr(path.c_str(), "user.a", &value, 1) == 1 && value == 'b', path);
          return;
        }
        [[fallthrough]];
      default:
        ReadWhole(shown, file, path);
    }
  }

  void ReadWhole(const Shown& shown, const std::string& file, const std::string& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::string content(kFileBytes, '\0');
    size_t used = 0;
    ssize_t bytes = fd.valid() ? 1 : -1;
    while (bytes > 0 && used < content.size()) {
      bytes =
          ::pread(fd.get(), content.data() + used, content.size() - used, static_cast<off_t>(used));
      used += bytes > 0 ? static_cast<size_t>(bytes) : 0;
    }
    Expect(bytes > 0, path);
    Expect(content == PatternFile(shown.layer->image(), file), "content of " + path);
    (void)::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
  }

  void Expect(bool holds, const std::string& what) {
    const int error = errno;
    if (!holds && !progress_.failed.exchange(true)) {
      (void)std::snprintf(progress_.failure.data(), progress_.failure.size(), "%s: errno %d",
                          what.c_str(), error);
    }
  }

  const std::vector<Shown>& shown_;
  Progress& progress_;
  std::minstd_rand random_;
};

class FuseCrashMountTest : public FuseMountFixture {
 protected:
  void SetUp() override {
    FuseMountFixture::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    void* const memory = ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    progress_ = new (memory) Progress;
    presenter_.reset();
    ASSERT_NO_FATAL_FAILURE(Start(filler_));
    if (!presenter_->stays()) {
      GTEST_SKIP() << "kernel lacks FUSE_NOTIFY_RESEND";
    }
    ShowLayer({});
    ShowLayer({{"user.a", "b"}});
    presenter_.reset();  // from here on this process has no threads, and may fork
  }

  void TearDown() override {
    // A reader that waits cannot be killed before its request fails: nobody may have the device.
    presenter_.reset();
    for (const char* name : {"fuse-p", "fuse-x"}) {
      store_.Drop(name);
    }
    for (const pid_t reader : readers_) {
      (void)::kill(reader, SIGKILL);
      (void)::waitpid(reader, nullptr, 0);
    }
    if (progress_ != nullptr) {
      (void)::munmap(progress_, sizeof(Progress));
    }
  }

  void Start(Filler& filler) {
    STRATA_ASSERT_OK_AND_ASSIGN(
        presenter_, FusePresenter::Start({.directory = dir_.Join("fuse"), .fds = &store_}, filler));
  }

  void ShowLayer(const std::map<std::string, std::string>& xattrs) {
    std::vector<PatternEntry> entries;
    for (int d = 0; d < kDirectories; ++d) {
      const std::string directory = "d" + std::to_string(d);
      entries.push_back(Link(directory + "/link", "target"));
      for (int f = 0; f < kFilesEach; ++f) {
        entries.push_back(
            {.name = directory + "/f" + std::to_string(f), .size = kFileBytes, .xattrs = xattrs});
      }
    }
    auto layer = Make(entries);
    std::string root = Show(layer);
    shown_.push_back({std::move(layer), std::move(root), !xattrs.empty()});
  }

  void StartReaders() {
    for (int i = 0; i < kReaders; ++i) {
      const pid_t reader = ::fork();
      if (reader == 0) {
        (void)::close_range(3, ~0U, 0);  // the devices, above all
        Reader(shown_, *progress_, static_cast<unsigned>(i) + 1).Run();
        ::_exit(0);
      }
      readers_.push_back(reader);
    }
  }

  // As a process does that starts after a crash.
  bool Succeed(Filler& filler) {
    auto started = FusePresenter::Start({.directory = dir_.Join("fuse"), .fds = &store_}, filler);
    if (!started.ok()) {
      return false;
    }
    presenter_ = *std::move(started);
    bool resumed = true;
    for (const Shown& shown : shown_) {
      struct statx top {};
      (void)::statx(AT_FDCWD, shown.root.c_str(), AT_STATX_DONT_SYNC, STATX_TYPE, &top);
      const FoundMount found{"fuse.strata", ::makedev(top.stx_dev_major, top.stx_dev_minor)};
      resumed = presenter_->Resume(shown.layer, &found) && resumed;
    }
    presenter_->Settled();
    return resumed;
  }

  // A server that lives until the readers have made so many steps with it, or, with none, until it
  // is somewhere in its start, `late` turns of this process after its beginning.
  void ServeAndKill(uint64_t steps, uint64_t late = 0) {
    const uint64_t before = progress_->servers;
    const pid_t server = ::fork();
    if (server == 0) {
      PatternFiller filler;
      filler.SetMode(PatternFiller::Mode::kLater);
      progress_->servers.fetch_add(1);
      if (!Succeed(filler)) {
        progress_->failed = true;
      }
      while (true) {
        (void)::pause();
      }
    }
    EXPECT_TRUE(Eventually([&] { return progress_->servers > before; }));
    const uint64_t until = progress_->steps + steps;
    EXPECT_TRUE(Eventually([&] { return progress_->steps >= until || progress_->failed; }));
    for (uint64_t i = 0; i < late; ++i) {
      std::this_thread::yield();
    }
    (void)::kill(server, SIGKILL);
    (void)::waitpid(server, nullptr, 0);
  }

  [[nodiscard]] std::string failure() const {
    return progress_->failed ? "failed: " + std::string(progress_->failure.data()) : "";
  }

  FakeFdStore store_;
  Progress* progress_ = nullptr;
  std::vector<Shown> shown_;
  std::vector<pid_t> readers_;
};

TEST_F(FuseCrashMountTest, NoReaderSeesThatServersAreKilled) {
  const size_t descriptors = NamesIn("/proc/self/fd").size();
  StartReaders();
  std::minstd_rand random(1);
  for (int i = 0; i < kKills && !progress_->failed; ++i) {
    ServeAndKill(random() % 300);
    ServeAndKill(0, random() % 200);
  }
  ASSERT_EQ(failure(), "");
  EXPECT_EQ(NamesIn("/proc/self/fd").size(), descriptors);

  EXPECT_TRUE(Succeed(filler_));
  const uint64_t until = progress_->steps + 500;
  EXPECT_TRUE(Eventually([&] { return progress_->steps >= until || progress_->failed; }));
  progress_->stop = true;
  for (const pid_t reader : std::exchange(readers_, {})) {
    int status = -1;
    EXPECT_EQ(::waitpid(reader, &status, 0), reader);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(failure(), "");
  EXPECT_EQ(presenter_->counters().errors, 0U);
  presenter_.reset();
  EXPECT_EQ(NamesIn("/proc/self/fd").size(), descriptors);
}

TEST_F(FuseCrashMountTest, NoReaderSeesThatServersEndAndStart) {
  StartReaders();
  std::minstd_rand random(2);
  filler_.SetMode(PatternFiller::Mode::kLater);
  for (int i = 0; i < kKills && !progress_->failed; ++i) {
    ASSERT_TRUE(Succeed(filler_));
    const uint64_t until = progress_->steps + random() % 300;
    EXPECT_TRUE(Eventually([&] { return progress_->steps >= until || progress_->failed; }));
    presenter_.reset();
  }
  ASSERT_TRUE(Succeed(filler_));
  progress_->stop = true;
  for (const pid_t reader : std::exchange(readers_, {})) {
    EXPECT_EQ(::waitpid(reader, nullptr, 0), reader);
  }
  EXPECT_EQ(failure(), "");
}

}  // namespace
}  // namespace strata
