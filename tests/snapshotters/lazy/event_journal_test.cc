// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/event_journal.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <future>
#include <memory>
#include <thread>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

UniqueFd Copy(const EventJournal& journal) {
  return UniqueFd(::fcntl(journal.fd(), F_DUPFD_CLOEXEC, 0));
}

// As the kernel would.
void Put(EventJournal& journal, uint32_t slot, int number) {
  fanotify_event_metadata event{};
  event.event_len = sizeof(event);
  event.metadata_len = sizeof(event);
  event.vers = FANOTIFY_METADATA_VERSION;
  event.fd = number;
  event.pid = 77;
  std::memcpy(journal.buffer(slot).data(), &event, sizeof(event));
}

std::unique_ptr<EventJournal> Make(uint32_t slots) {
  auto journal = EventJournal::Create(slots);
  EXPECT_THAT(journal, IsOk());
  return *std::move(journal);
}

std::unique_ptr<EventJournal> Successor(const EventJournal& journal) {
  auto successor = EventJournal::Adopt(Copy(journal));
  EXPECT_THAT(successor, IsOk());
  return *std::move(successor);
}

TEST(EventJournalTest, ASuccessorFindsWhatIsLeft) {
  const auto journal = Make(8);
  const uint32_t looked = *journal->Take();
  Put(*journal, looked, 11);
  journal->SetLayer(looked, 5);
  const uint32_t taken = *journal->Take();
  Put(*journal, taken, 12);
  const uint32_t answered = *journal->Take();
  Put(*journal, answered, 13);
  journal->SetAnswer(answered, /*allow=*/false);
  (void)journal->Take();  // none came

  const auto successor = Successor(*journal);
  EXPECT_EQ(successor->free(), 5U);
  const auto left = successor->TakeLeft();
  ASSERT_EQ(left.size(), 3U);
  for (const EventJournal::Left& event : left) {
    EXPECT_EQ(event.event.pid, 77);
    if (event.event.fd == 11) {
      EXPECT_EQ(event.slot, looked);
      EXPECT_EQ(event.layer, 5U);
      EXPECT_EQ(event.allow, std::nullopt);
    } else if (event.event.fd == 12) {
      EXPECT_EQ(event.layer, std::nullopt);
    } else {
      EXPECT_EQ(event.event.fd, 13);
      EXPECT_EQ(event.allow, false);
    }
  }
}

TEST(EventJournalTest, WhatWasClearedIsNotLeft) {
  const auto journal = Make(2);
  const uint32_t slot = *journal->Take();
  Put(*journal, slot, 11);
  journal->SetLayer(slot, 5);
  journal->SetAnswer(slot, /*allow=*/true);
  journal->Clear(slot);
  const auto successor = Successor(*journal);
  EXPECT_TRUE(successor->TakeLeft().empty());
  EXPECT_EQ(successor->free(), 2U);
}

TEST(EventJournalTest, ASlotKeepsNothingOfItsLastEvent) {
  const auto journal = Make(1);
  const uint32_t slot = *journal->Take();
  Put(*journal, slot, 11);
  journal->SetLayer(slot, 5);
  journal->SetAnswer(slot, /*allow=*/true);
  journal->Clear(slot);
  Put(*journal, *journal->Take(), 12);
  const auto left = Successor(*journal)->TakeLeft();
  ASSERT_EQ(left.size(), 1U);
  EXPECT_EQ(left[0].layer, std::nullopt);
  EXPECT_EQ(left[0].allow, std::nullopt);
}

TEST(EventJournalTest, WhenItIsFullTakeWaits) {
  const auto journal = Make(1);
  const uint32_t slot = *journal->Take();
  std::future<std::optional<uint32_t>> next =
      std::async(std::launch::async, [&] { return journal->Take(); });
  journal->Clear(slot);
  EXPECT_EQ(next.get(), slot);
}

TEST(EventJournalTest, StopEndsTheWait) {
  const auto journal = Make(1);
  (void)journal->Take();
  std::future<std::optional<uint32_t>> next =
      std::async(std::launch::async, [&] { return journal->Take(); });
  journal->Stop();
  EXPECT_EQ(next.get(), std::nullopt);
}

TEST(EventJournalTest, ALargerOneHasWhatIsLeft) {
  const auto journal = Make(2);
  (void)journal->Take();
  const uint32_t slot = *journal->Take();
  Put(*journal, slot, 11);
  journal->SetLayer(slot, 5);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto larger, EventJournal::CreateFrom(*journal, 4));
  EXPECT_EQ(larger->free(), 3U);
  const auto left = Successor(*larger)->TakeLeft();
  ASSERT_EQ(left.size(), 1U);
  EXPECT_EQ(left[0].slot, slot);
  EXPECT_EQ(left[0].layer, 5U);
}

TEST(EventJournalTest, RefusesWhatIsNoJournal) {
  EXPECT_THAT(EventJournal::Adopt(UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC))),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("no sealed memfd")));
  UniqueFd memory(::memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(memory.get(), 640), 0);
  ASSERT_EQ(::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
  EXPECT_THAT(EventJournal::Adopt(std::move(memory)),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("it is none")));
}

TEST(EventJournalTest, NamesTheVersionThatItDoesNotKnow) {
  const auto journal = Make(2);
  const uint32_t version = 9;
  ASSERT_EQ(::pwrite(journal->fd(), &version, sizeof(version), 8), 4);
  EXPECT_THAT(EventJournal::Adopt(Copy(*journal)),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("version 9, expected 1")));
}

TEST(EventJournalTest, RefusesAnotherLengthThanItSays) {
  const auto journal = Make(2);
  const uint32_t slots = 3;
  ASSERT_EQ(::pwrite(journal->fd(), &slots, sizeof(slots), 12), 4);
  EXPECT_THAT(EventJournal::Adopt(Copy(*journal)), StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace strata
