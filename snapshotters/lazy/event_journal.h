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
  };

  static StatusOr<std::unique_ptr<EventJournal>> Create(uint32_t slots);
  // A predecessor's. InvalidArgument: not a journal, or not of this version; the message says
  // which.
  static StatusOr<std::unique_ptr<EventJournal>> Adopt(UniqueFd fd);
  ~EventJournal();
  EventJournal(const EventJournal&) = delete;
  EventJournal& operator=(const EventJournal&) = delete;

  [[nodiscard]] int fd() const { return fd_.get(); }
  // To be called once, before the first Take.
  std::vector<Left> TakeLeft();

  // An empty slot; waits until there is one. nullopt: Stop was called.
  std::optional<uint32_t> Take();
  // For FanotifyGroup::Read.
  [[nodiscard]] std::span<std::byte> buffer(uint32_t slot);
  // Which layer the event in the slot is of.
  void SetLayer(uint32_t slot, uint64_t layer);
  // The event was answered (or none came); to be called before its descriptor is closed.
  void Clear(uint32_t slot);
  // Ends the waits of Take.
  void Stop();

 private:
  EventJournal() = default;
  Status Map();

  UniqueFd fd_;
  std::byte* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  uint32_t slots_ = 0;
  Mutex mutex_;
  CondVar changed_;
  std::vector<uint32_t> free_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace strata
