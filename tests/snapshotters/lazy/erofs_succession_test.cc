// SPDX-License-Identifier: Apache-2.0
//
// One EROFS presenter after another, and readers that notice nothing.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/lazy/event_journal.h"
#include "snapshotters/os/mount_ops.h"
#include "tests/snapshotters/lazy/erofs_fixture.h"

extern char** environ;

namespace strata {
namespace {

using testing::Complete;
using testing::ErofsMountFixture;
using testing::Eventually;
using testing::FakeFdStore;
using testing::File;
using testing::IsOk;
using testing::NamesIn;
using testing::PatternFile;
using testing::PatternFiller;
using testing::ReadAt;
using testing::ReadLinkOf;

constexpr size_t kFileBytes = 3'000'000;
constexpr std::string_view kVictim = "--victim";

struct ReadResult {
  std::string content;
  int error = 0;
};

class ErofsSuccessionMountTest : public ErofsMountFixture {
 protected:
  void TearDown() override {
    // Whoever still waits, for a test that has failed, is let through.
    presenter_.reset();
    store_.Drop(ErofsPresenter::kGroupName);
  }

  // Opens the layer as a start does.
  std::shared_ptr<FillLayer> Reopen(uint64_t number) {
    const StatusOr<UniqueFd> layers = OpenFile(dir_.Join("layers"), O_RDONLY | O_DIRECTORY);
    EXPECT_THAT(layers, IsOk());
    auto image = LayerImage::Open(layers->get(), number, presenter_->files());
    EXPECT_THAT(image, IsOk());
    return filler_.Add(*std::move(image), nullptr, nullptr);
  }

  bool Resume(const std::shared_ptr<FillLayer>& layer, const std::string& type = "erofs") {
    const FoundMount top{.type = type, .device = 0};
    return presenter_->Resume(layer, &top);
  }

  std::future<ReadResult> Read(const std::string& path, uint64_t offset = 0,
                               size_t bytes = kFileBytes) {
    return std::async(std::launch::async, [=] {
      ReadResult result;
      result.content = ReadAt(path, offset, bytes, &result.error);
      return result;
    });
  }

  // Another process takes over, and is killed when it has an event and cannot answer it.
  void TakeOverAndDie(uint64_t number) {
    std::array<int, 2> ready{};
    ASSERT_EQ(::pipe2(ready.data(), O_CLOEXEC), 0);
    const UniqueFd from(ready[0]);
    UniqueFd to(ready[1]);
    const UniqueFd group = store_.Take(ErofsPresenter::kGroupName);
    const UniqueFd journal = store_.Take(ErofsPresenter::kJournalName);
    posix_spawn_file_actions_t actions;
    ASSERT_EQ(::posix_spawn_file_actions_init(&actions), 0);
    // Numbers behind those of all else, so that nothing is overwritten before it is duplicated.
    ASSERT_EQ(::posix_spawn_file_actions_adddup2(&actions, group.get(), 200), 0);
    ASSERT_EQ(::posix_spawn_file_actions_adddup2(&actions, journal.get(), 201), 0);
    ASSERT_EQ(::posix_spawn_file_actions_adddup2(&actions, to.get(), 202), 0);
    std::string program = "/proc/self/exe";
    std::string victim(kVictim);
    std::string root = dir_.path();
    std::string layer = std::to_string(number);
    std::array<char*, 5> arguments = {program.data(), victim.data(), root.data(), layer.data(),
                                      nullptr};
    pid_t child = -1;
    ASSERT_EQ(::posix_spawn(&child, program.c_str(), &actions, nullptr, arguments.data(), environ),
              0);
    (void)::posix_spawn_file_actions_destroy(&actions);
    to.Reset();
    char byte = 0;
    EXPECT_EQ(::read(from.get(), &byte, 1), 1);
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status));
  }
};

int OpenDescriptorsOf(const std::string& path) {
  int count = 0;
  for (const std::string& name : NamesIn("/proc/self/fd")) {
    count += ReadLinkOf("/proc/self/fd/" + name) == path ? 1 : 0;
  }
  return count;
}

// What the other process does: says so when an event waits for its filler, which never fills.
int RunVictim(const std::string& root, uint64_t number) {
  FakeFdStore store;
  PatternFiller filler;
  filler.SetMode(PatternFiller::Mode::kNever);
  const UniqueFd layers(::open((root + "/layers").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  auto reserve = SpaceReserve::Open(root + "/reserve");
  if (!reserve.ok() || !store.Keep(ErofsPresenter::kGroupName, 200).ok() ||
      !store.Keep(ErofsPresenter::kJournalName, 201).ok()) {
    return 1;
  }
  (void)::close(200);
  (void)::close(201);
  auto presenter = ErofsPresenter::Start(
      {.layers_directory = root + "/layers", .probe_directory = root + "/probe"}, store, filler,
      **reserve);
  if (!presenter.ok()) {
    return 2;
  }
  auto image = LayerImage::Open(layers.get(), number, (*presenter)->files());
  if (!image.ok()) {
    return 3;
  }
  const FoundMount top{.type = "erofs", .device = 0};
  if (!(*presenter)->Resume(filler.Add(*std::move(image), nullptr, nullptr), &top)) {
    return 4;
  }
  (*presenter)->Settled();
  if (!Eventually([&] { return filler.kept() > 0; }) || ::write(202, "x", 1) != 1) {
    return 5;
  }
  (void)::pause();
  return 6;
}

TEST_F(ErofsSuccessionMountTest, ASuccessorGoesOn) {
  const auto layer = Make({File("f", kFileBytes)});
  const std::string root = Show(layer);
  const std::string content = PatternFile(layer->image(), "f");
  presenter_.reset();
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  EXPECT_TRUE(presenter_->inherited());
  EXPECT_TRUE(Resume(Reopen(7)));
  presenter_->Settled();
  EXPECT_GT(reserve_->reserved(), 0U);
  EXPECT_TRUE(ReadAt(root + "/f", 0, kFileBytes) == content);
}

TEST_F(ErofsSuccessionMountTest, WhatADescriptorOfAnEventFillsRaisesNone) {
  const auto layer = Make({File("f", kFileBytes)});
  (void)Show(layer);
  presenter_.reset();
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  const auto again = Reopen(7);
  ASSERT_TRUE(Resume(again));
  presenter_->Settled();
  const uint64_t events = presenter_->counters().events;
  Complete(again->image());
  ASSERT_THAT(again->image().Persist(), IsOk());
  EXPECT_EQ(presenter_->counters().events, events);
  presenter_->Complete(*again);
  EXPECT_EQ(presenter_->counters().marked, 0U);
}

TEST_F(ErofsSuccessionMountTest, ASuccessorCanTellWhetherItsImageIsInUse) {
  const std::string root = Show(Make({File("f", kFileBytes)}));
  presenter_.reset();
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  ASSERT_TRUE(Resume(Reopen(7)));
  presenter_->Settled();
  EXPECT_FALSE(presenter_->Withdraw(7));
  ASSERT_THAT(Unmount(root, /*lazy=*/false), IsOk());
  EXPECT_TRUE(Eventually([&] { return presenter_->Withdraw(7); }));
}

TEST_F(ErofsSuccessionMountTest, AnswersWhatADestroyedOneLeft) {
  auto layer = Make({File("f", kFileBytes)});
  const std::string content = PatternFile(layer->image(), "f");
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kNever);
  auto read = Read(root + "/f");
  ASSERT_TRUE(Eventually([&] { return filler_.kept() > 0; }));
  presenter_.reset();
  filler_.CallBack(OkStatus());  // nobody listens any more: this must not let the reader go
  layer.reset();

  filler_.SetMode(PatternFiller::Mode::kLater);
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  ASSERT_TRUE(Resume(Reopen(7)));
  presenter_->Settled();
  const ReadResult result = read.get();
  EXPECT_EQ(result.error, 0);
  EXPECT_TRUE(result.content == content);
  EXPECT_GT(presenter_->counters().inherited, 0U);
}

TEST_F(ErofsSuccessionMountTest, AnswersWhatAKilledOneLeft) {
  // So far apart that the kernel does not read ahead from the one to the other.
  constexpr size_t kApart = 8'000'000;
  constexpr size_t kBytes = 1'000'000;
  constexpr size_t kRounds = 3;
  const auto layer = Make({File("f", kRounds * kApart)});
  const std::string content = PatternFile(layer->image(), "f");
  const std::string root = Show(layer);
  presenter_.reset();
  for (size_t round = 0; round < kRounds; ++round) {
    auto read = Read(root + "/f", round * kApart, kBytes);
    ASSERT_NO_FATAL_FAILURE(TakeOverAndDie(7));
    ASSERT_NO_FATAL_FAILURE(StartPresenter());
    ASSERT_TRUE(Resume(Reopen(7)));
    presenter_->Settled();
    const ReadResult result = read.get();
    EXPECT_EQ(result.error, 0);
    EXPECT_TRUE(result.content == content.substr(round * kApart, kBytes));
    EXPECT_GT(presenter_->counters().inherited, 0U);
    presenter_.reset();
  }
}

TEST_F(ErofsSuccessionMountTest, EventsOfLayersThatAreNotOpenYetWait) {
  const auto layer = Make({File("f", kFileBytes)});
  const std::string content = PatternFile(layer->image(), "f");
  const std::string root = Show(layer);
  presenter_.reset();
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  auto read = Read(root + "/f");
  ASSERT_TRUE(Eventually([&] { return presenter_->counters().events > 0; }));
  ASSERT_TRUE(Resume(Reopen(7)));
  presenter_->Settled();
  const ReadResult result = read.get();
  EXPECT_EQ(result.error, 0);
  EXPECT_TRUE(result.content == content);
}

TEST_F(ErofsSuccessionMountTest, EventsOfNoLayerAreDenied) {
  const std::string root = Show(Make({File("f", kFileBytes)}));
  presenter_.reset();
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  auto early = Read(root + "/f");
  ASSERT_TRUE(Eventually([&] { return presenter_->counters().events > 0; }));
  presenter_->Settled();
  EXPECT_EQ(early.get().error, EIO);
  EXPECT_EQ(Read(root + "/f").get().error, EIO);
}

// The successor has descriptors of its own under the numbers that the events had.
TEST_F(ErofsSuccessionMountTest, NumbersMayCollide) {
  auto layer = Make({File("a", 4096), File("b", 4096)});
  const std::string a = PatternFile(layer->image(), "a");
  const std::string b = PatternFile(layer->image(), "b");
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kNever);
  auto first = Read(root + "/a", 0, 4096);
  ASSERT_TRUE(Eventually([&] { return filler_.kept() == 1; }));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto journal,
                              EventJournal::Adopt(store_.Take(ErofsPresenter::kJournalName)));
  const auto left = journal->TakeLeft();
  ASSERT_EQ(left.size(), 1U);
  const int number = left[0].event.fd;
  presenter_.reset();
  // In use while the successor starts, and free afterwards.
  UniqueFd in_the_way(::fcntl(journal->fd(), F_DUPFD_CLOEXEC, number));
  ASSERT_EQ(in_the_way.get(), number);

  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  const auto again = Reopen(7);
  ASSERT_TRUE(Resume(again));
  // The old one's descriptor, the new one's, and a duplicate that is kept until Settled: that of
  // the event by which it was opened is closed.
  ASSERT_TRUE(Eventually([&] { return OpenDescriptorsOf(dir_.Join("layers/7/image")) == 3; }));
  // Numbers below are in use.
  std::vector<UniqueFd> below;
  while (below.empty() || below.back().get() < number) {
    below.emplace_back(::fcntl(journal->fd(), F_DUPFD_CLOEXEC, 0));
  }
  const UniqueFd second_fd(::open((root + "/b").c_str(), O_RDONLY | O_CLOEXEC));
  in_the_way.Reset();
  auto second = std::async(std::launch::async, [&] {
    std::string content(4096, '\0');
    return ::pread(second_fd.get(), content.data(), content.size(), 0) == 4096 ? content : "";
  });
  // Nothing that opens a file may be asked: it would get that number.
  ASSERT_TRUE(Eventually([&] { return journal->TakeLeft().size() == 2; }));
  EXPECT_EQ(journal->TakeLeft().back().event.fd, number);
  EXPECT_EQ(filler_.kept(), 1U);  // of the predecessor: the new one waits behind the old one
  filler_.SetMode(PatternFiller::Mode::kLater);
  presenter_->Settled();
  EXPECT_TRUE(first.get().content == a);
  EXPECT_TRUE(second.get() == b);
}

TEST_F(ErofsSuccessionMountTest, EventsOfUnknownLayersWaitForAll) {
  auto layer = Make({File("f", 4096)});
  const std::string content = PatternFile(layer->image(), "f");
  (void)Show(Make({File("other", kFileBytes)}));
  const std::string root = Show(layer);
  presenter_.reset();
  // Taken as by a process that was killed before it had looked.
  STRATA_ASSERT_OK_AND_ASSIGN(const FanotifyGroup group,
                              FanotifyGroup::Adopt(store_.Take(ErofsPresenter::kGroupName)));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto journal,
                              EventJournal::Adopt(store_.Take(ErofsPresenter::kJournalName)));
  auto read = Read(root + "/f", 0, 4096);
  const auto event = group.Read(journal->buffer(*journal->Take()));
  ASSERT_THAT(event, IsOk());
  ASSERT_EQ(::close(event->fd), 0);

  filler_.SetMode(PatternFiller::Mode::kNever);
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  ASSERT_TRUE(Resume(Reopen(7)));
  ASSERT_TRUE(Resume(Reopen(8)));
  presenter_->Settled();
  EXPECT_EQ(filler_.kept(), 2U);
  Complete(layer->image());
  filler_.CallBack(OkStatus());
  EXPECT_TRUE(read.get().content == content);
}

TEST_F(ErofsSuccessionMountTest, WhatWasAboutToBeAnsweredIsAnsweredAtOnce) {
  auto layer = Make({File("f", 4096)});
  const std::string content = PatternFile(layer->image(), "f");
  const std::string root = Show(layer);
  presenter_.reset();
  STRATA_ASSERT_OK_AND_ASSIGN(const FanotifyGroup group,
                              FanotifyGroup::Adopt(store_.Take(ErofsPresenter::kGroupName)));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto journal,
                              EventJournal::Adopt(store_.Take(ErofsPresenter::kJournalName)));
  auto read = Read(root + "/f", 0, 4096);
  const uint32_t slot = *journal->Take();
  const auto event = group.Read(journal->buffer(slot));
  ASSERT_THAT(event, IsOk());
  Complete(layer->image());
  journal->SetAnswer(slot, /*allow=*/true);
  ASSERT_EQ(::close(event->fd), 0);

  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  EXPECT_TRUE(read.get().content == content);
}

TEST_F(ErofsSuccessionMountTest, WithoutTheJournalReadsThatWaitFail) {
  const std::string root = Show(Make({File("f", 4096)}));
  filler_.SetMode(PatternFiller::Mode::kNever);
  auto read = Read(root + "/f", 0, 4096);
  ASSERT_TRUE(Eventually([&] { return filler_.kept() > 0; }));
  presenter_.reset();
  store_.Drop(ErofsPresenter::kJournalName);
  filler_.SetMode(PatternFiller::Mode::kFail);
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  ASSERT_TRUE(Resume(Reopen(7)));
  presenter_->Settled();
  EXPECT_EQ(read.get().error, EIO);
  EXPECT_TRUE(store_.Take(ErofsPresenter::kJournalName).valid());
}

TEST_F(ErofsSuccessionMountTest, AJournalThatIsHalfFullBecomesLarger) {
  presenter_.reset();
  store_.Drop(ErofsPresenter::kGroupName);
  ErofsOptions options = Options();
  options.most_waiting = 1;
  options.threads = 1;
  STRATA_ASSERT_OK_AND_ASSIGN(presenter_,
                              ErofsPresenter::Start(options, store_, filler_, *reserve_));
  const auto layer = Make({File("f", 4096)});
  const std::string content = PatternFile(layer->image(), "f");
  const std::string root = Show(layer);
  filler_.SetMode(PatternFiller::Mode::kNever);
  auto read = Read(root + "/f", 0, 4096);
  ASSERT_TRUE(Eventually([&] { return filler_.kept() > 0; }));
  presenter_.reset();
  filler_.SetMode(PatternFiller::Mode::kLater);
  STRATA_ASSERT_OK_AND_ASSIGN(presenter_,
                              ErofsPresenter::Start(options, store_, filler_, *reserve_));
  ASSERT_TRUE(Resume(Reopen(7)));  // which takes a slot, too
  presenter_->Settled();
  EXPECT_TRUE(read.get().content == content);
}

TEST_F(ErofsSuccessionMountTest, ACompleteLayerThatIsStillMarkedLosesItsMark) {
  const auto layer = Make({File("f", kFileBytes)});
  const std::string content = PatternFile(layer->image(), "f");
  const std::string root = Show(layer);
  Complete(layer->image());
  ASSERT_THAT(layer->image().Persist(), IsOk());
  presenter_.reset();
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  EXPECT_EQ(presenter_->counters().marked, 1U);
  auto read = Read(root + "/f");
  (void)Reopen(7);  // complete, so it is not resumed
  presenter_->Settled();
  EXPECT_EQ(presenter_->counters().marked, 0U);
  EXPECT_TRUE(read.get().content == content);
}

TEST_F(ErofsSuccessionMountTest, AMountWhoseGroupWasLostIsGuardedAgain) {
  const auto layer = Make({File("f", kFileBytes)});
  const std::string content = PatternFile(layer->image(), "f");
  const std::string root = Show(layer);
  const UniqueFd open(::open((root + "/f").c_str(), O_RDONLY | O_CLOEXEC));
  presenter_.reset();
  store_.Drop(ErofsPresenter::kGroupName);
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  EXPECT_FALSE(presenter_->inherited());
  const auto again = Reopen(7);
  EXPECT_FALSE(Resume(again));
  presenter_->Settled();
  EXPECT_EQ(presenter_->counters().marked, 1U);
  std::string read(kFileBytes, '\0');
  EXPECT_EQ(::pread(open.get(), read.data(), read.size(), 0), static_cast<ssize_t>(kFileBytes));
  EXPECT_TRUE(read == content);
  EXPECT_THAT(presenter_->Show(again, root), IsOk());
  EXPECT_TRUE(ReadAt(root + "/f", 0, kFileBytes) == content);
}

TEST_F(ErofsSuccessionMountTest, AMountOfAnotherKindIsNotTakenOver) {
  const auto layer = Make({File("f", kFileBytes)});
  EXPECT_FALSE(Resume(layer, "fuse.strata"));
  EXPECT_FALSE(presenter_->Resume(layer, nullptr));
  EXPECT_EQ(presenter_->counters().marked, 0U);
}

TEST_F(ErofsSuccessionMountTest, FilesOfACoveredMountAreServedOn) {
  const auto layer = Make({File("f", kFileBytes)});
  const std::string content = PatternFile(layer->image(), "f");
  const std::string root = Show(layer);
  const UniqueFd open(::open((root + "/f").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_THAT(Unmount(root, /*lazy=*/true), IsOk());
  presenter_.reset();
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  EXPECT_FALSE(presenter_->Resume(Reopen(7), nullptr));
  presenter_->Settled();
  std::string read(kFileBytes, '\0');
  EXPECT_EQ(::pread(open.get(), read.data(), read.size(), 0), static_cast<ssize_t>(kFileBytes));
  EXPECT_TRUE(read == content);
}

}  // namespace

int RunVictimOf(int argc, char** argv) {
  return argc == 4 ? RunVictim(argv[2], std::strtoull(argv[3], nullptr, 10)) : 1;
}

}  // namespace strata

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == strata::kVictim) {
    return strata::RunVictimOf(argc, argv);
  }
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
