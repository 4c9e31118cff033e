// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/event_journal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

#include "snapshotters/base/check.h"

namespace strata {

// FORMAT.md, "journal".
struct EventJournal::Header {
  std::array<char, 8> magic = {'S', 'T', 'R', 'A', 'J', 'R', 'N', 'L'};
  uint32_t version = kVersion;
  uint32_t slots = 0;
  std::array<uint8_t, 48> zero = {};
};

struct EventJournal::Slot {
  std::array<std::byte, FanotifyGroup::kEventBytes> event;
  uint64_t layer;
  std::atomic<uint32_t> flags;
  uint32_t zero;
};

namespace {

constexpr size_t kSlotBytes = 64;  // of the header, too
constexpr uint32_t kMostSlots = 1U << 24;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// Flags of a slot.
constexpr uint32_t kLayerKnown = 1;
constexpr uint32_t kAllowed = 2;
constexpr uint32_t kDenied = 4;

size_t BytesFor(uint32_t slots) {
  return (size_t{slots} + 1) * kSlotBytes;
}

Status NoJournal(std::string_view why) {
  return MakeStatus(StatusCode::kInvalidArgument, "adopt a journal: " + std::string(why));
}

}  // namespace

StatusOr<std::unique_ptr<EventJournal>> EventJournal::Create(uint32_t slots) {
  if (slots == 0 || slots > kMostSlots) {
    return MakeStatus(StatusCode::kInvalidArgument, "make a journal of " + std::to_string(slots) +
                                                        " slots: expected 1 to " +
                                                        std::to_string(kMostSlots));
  }
  UniqueFd fd(::memfd_create("strata-journal", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) {
    return ErrnoStatus(errno, "make a journal");
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(BytesFor(slots))) != 0) {
    return ErrnoStatus(errno, "make a journal of " + std::to_string(slots) + " slots");
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) {
    return ErrnoStatus(errno, "seal a journal");
  }
  std::unique_ptr<EventJournal> journal(new EventJournal(std::move(fd), slots));
  STRATA_RETURN_IF_ERROR(journal->Map());
  Header header;
  header.slots = slots;
  static_assert(sizeof(header) == kSlotBytes);
  std::memcpy(journal->mapping_, &header, sizeof(header));
  journal->FindFree();
  return journal;
}

StatusOr<std::unique_ptr<EventJournal>> EventJournal::Adopt(UniqueFd fd) {
  // Sealed: nobody else can make it shorter, which would end us with SIGBUS.
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) {
    return NoJournal("the descriptor is no sealed memfd");
  }
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0) {
    return ErrnoStatus(errno, "stat a journal");
  }
  const auto bytes = static_cast<uint64_t>(found.st_size);
  if (bytes < BytesFor(1) || bytes > BytesFor(kMostSlots) || bytes % kSlotBytes != 0) {
    return NoJournal(std::to_string(bytes) + " bytes are no length of one");
  }
  std::unique_ptr<EventJournal> journal(
      new EventJournal(std::move(fd), static_cast<uint32_t>(bytes / kSlotBytes) - 1));
  STRATA_RETURN_IF_ERROR(journal->Map());
  STRATA_RETURN_IF_ERROR(journal->CheckHeader());
  journal->FindFree();
  return journal;
}

StatusOr<std::unique_ptr<EventJournal>> EventJournal::CreateFrom(const EventJournal& other,
                                                                 uint32_t slots) {
  STRATA_CHECK(slots >= other.slots_);
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<EventJournal> journal, Create(slots));
  std::memcpy(journal->mapping_ + kSlotBytes, other.mapping_ + kSlotBytes,
              BytesFor(other.slots_) - kSlotBytes);
  journal->FindFree();
  return journal;
}

EventJournal::~EventJournal() {
  if (mapping_ != nullptr) {
    (void)::munmap(mapping_, BytesFor(slots_));  // fails for bad arguments only
  }
}

Status EventJournal::Map() {
  void* mapping =
      ::mmap(nullptr, BytesFor(slots_), PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (mapping == MAP_FAILED) {
    return ErrnoStatus(errno, "map a journal");
  }
  mapping_ = static_cast<std::byte*>(mapping);
  return OkStatus();
}

Status EventJournal::CheckHeader() const {
  Header found;
  std::memcpy(&found, mapping_, sizeof(found));
  if (found.magic != Header().magic) {
    return NoJournal("it is none");
  }
  if (found.version != kVersion) {
    return NoJournal("it is of version " + std::to_string(found.version) + ", expected " +
                     std::to_string(kVersion));
  }
  return found.slots == slots_ ? OkStatus() : NoJournal("it has another length than it says");
}

void EventJournal::FindFree() {
  const MutexLock lock(mutex_);
  free_.clear();
  free_.reserve(slots_);
  for (uint32_t slot = slots_; slot-- > 0;) {
    if (!FanotifyGroup::Parse(at(slot).event).has_value()) {
      at(slot).flags = 0;  // a kill may have left one
      free_.push_back(slot);
    }
  }
}

EventJournal::Slot& EventJournal::at(uint32_t slot) const {
  static_assert(sizeof(Slot) == kSlotBytes && std::atomic<uint32_t>::is_always_lock_free);
  STRATA_CHECK(slot < slots_);
  return *reinterpret_cast<Slot*>(mapping_ + BytesFor(slot));
}

uint32_t EventJournal::free() const {
  const MutexLock lock(mutex_);
  return static_cast<uint32_t>(free_.size());
}

std::vector<EventJournal::Left> EventJournal::TakeLeft() {
  std::vector<Left> left;
  for (uint32_t slot = 0; slot < slots_; ++slot) {
    const std::optional<FanotifyGroup::Event> event = FanotifyGroup::Parse(at(slot).event);
    if (!event.has_value()) {
      continue;
    }
    const uint32_t flags = at(slot).flags.load(std::memory_order_acquire);
    left.push_back({.slot = slot, .event = *event, .layer = {}, .allow = {}});
    if ((flags & kLayerKnown) != 0) {
      left.back().layer = at(slot).layer;
    }
    if ((flags & (kAllowed | kDenied)) != 0) {
      left.back().allow = (flags & kAllowed) != 0;
    }
  }
  return left;
}

std::optional<uint32_t> EventJournal::Take() {
  const MutexLock lock(mutex_);
  while (free_.empty() && !stopped_) {
    changed_.Wait(mutex_);
  }
  if (stopped_) {
    return std::nullopt;
  }
  const uint32_t slot = free_.back();
  free_.pop_back();
  return slot;
}

std::span<std::byte> EventJournal::buffer(uint32_t slot) {
  return at(slot).event;
}

void EventJournal::SetLayer(uint32_t slot, uint64_t layer) {
  at(slot).layer = layer;
  at(slot).flags.fetch_or(kLayerKnown, std::memory_order_release);
}

void EventJournal::SetAnswer(uint32_t slot, bool allow) {
  at(slot).flags.fetch_or(allow ? kAllowed : kDenied, std::memory_order_release);
}

void EventJournal::Clear(uint32_t slot) {
  // In this order: an event without its flags would be answered once more.
  std::memset(at(slot).event.data(), 0, at(slot).event.size());
  at(slot).flags.store(0, std::memory_order_release);
  const MutexLock lock(mutex_);
  free_.push_back(slot);
  changed_.Signal();
}

void EventJournal::Stop() {
  const MutexLock lock(mutex_);
  stopped_ = true;
  changed_.SignalAll();
}

}  // namespace strata
