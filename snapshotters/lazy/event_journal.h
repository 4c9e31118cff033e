// SPDX-License-Identifier: Apache-2.0
//
// EventJournal: the events that were taken from the kernel and are not answered yet, in memory that
// the successor of this process shares (a sealed memfd, FORMAT.md "journal"). The kernel itself
// writes an event there as it gives it away, so there is no moment at which a kill loses one.
// Safe from any thread; a slot belongs to whoever has taken it.
#pragma once

#include <absl/base/thread_annotations.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/fanotify_group.h"

namespace strata {

class EventJournal {
 public:
  static constexpr uint32_t kVersion = 1;

  // What a predecessor has left.
  struct Left {
    uint32_t slot = 0;  // taken
    FanotifyGroup::Event event;
    std::optional<uint64_t> layer;  // unknown: it died before it had looked
    // It was about to give this answer, or has given it. Unknown: it has given none, so the event
    // waits in the kernel, and of several under one number the one that was taken first is the one
    // that an answer reaches.
    std::optional<bool> allow;
  };

  static StatusOr<std::unique_ptr<EventJournal>> Create(uint32_t slots);
  // A predecessor's. InvalidArgument: not a journal, or not of this version; the message says
  // which.
  static StatusOr<std::unique_ptr<EventJournal>> Adopt(UniqueFd fd);
  // A new one that also has what is left in `other`, in the same slots. `slots` is not less than
  // those of `other`.
  static StatusOr<std::unique_ptr<EventJournal>> CreateFrom(const EventJournal& other,
                                                            uint32_t slots);
  ~EventJournal();
  EventJournal(const EventJournal&) = delete;
  EventJournal& operator=(const EventJournal&) = delete;

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] uint32_t slots() const { return slots_; }
  // Slots that nobody has taken.
  [[nodiscard]] uint32_t free() const;
  // To be called once, before the first Take.
  std::vector<Left> TakeLeft();

  // An empty slot; waits until there is one. nullopt: Stop was called.
  std::optional<uint32_t> Take();
  // For FanotifyGroup::Read.
  [[nodiscard]] std::span<std::byte> buffer(uint32_t slot);
  // Which layer the event in the slot is of.
  void SetLayer(uint32_t slot, uint64_t layer);
  // The event is about to be answered so.
  void SetAnswer(uint32_t slot, bool allow);
  // The event was answered (or none came); to be called before its descriptor is closed.
  void Clear(uint32_t slot);
  // Ends the waits of Take.
  void Stop();

 private:
  struct Header;
  struct Slot;

  EventJournal(UniqueFd fd, uint32_t slots) : fd_(std::move(fd)), slots_(slots) {}
  Status Map();
  [[nodiscard]] Status CheckHeader() const;
  void FindFree();
  [[nodiscard]] Slot& at(uint32_t slot) const;

  const UniqueFd fd_;
  const uint32_t slots_;
  std::byte* mapping_ = nullptr;
  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<uint32_t> free_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace strata
