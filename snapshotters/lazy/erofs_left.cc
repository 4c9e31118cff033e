// SPDX-License-Identifier: Apache-2.0
//
// The part of ErofsEvents that deals with what a predecessor has left. The kernel knows an event
// that was taken by the number that its descriptor had in the process that took it, and an answer
// by that number reaches the one that was taken first (process_access_response in
// fs/notify/fanotify/fanotify_user.c).
#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/lazy/erofs_events.h"

namespace strata {
namespace {

// A descriptor with this number, if it is free: no event that comes can then get it. Invalid: it is
// in use; whoever has it may close it, so an event may get it later.
UniqueFd Occupy(int number, int any_fd) {
  UniqueFd fd(::fcntl(any_fd, F_DUPFD_CLOEXEC, number));
  return fd.get() == number ? std::move(fd) : UniqueFd();
}

}  // namespace

void ErofsEvents::TakeLeft() {
  const StatusOr<UniqueFd> null = OpenFile("/dev/null", O_RDONLY);
  for (const EventJournal::Left& event : journal_->TakeLeft()) {
    if (event.event.fd < 0) {
      journal_->Clear(event.slot);
      continue;
    }
    inherited_.fetch_add(1, std::memory_order_relaxed);
    if (event.allow.has_value()) {
      // Whether that answer was given is not known; nothing else has this number so far, and its
      // range was looked at.
      Write(event.slot, event.event.fd, *event.allow);
      continue;
    }
    const MutexLock lock(mutex_);
    Left& left = left_[event.event.fd];
    left.events.push_back(event);
    if (!left.occupied.valid() && null.ok()) {
      left.occupied = Occupy(event.event.fd, null->get());
    }
  }
  const MutexLock lock(mutex_);
  left_numbers_ = left_.size();
}

void ErofsEvents::Settle(const Settlement& settlement) {
  std::vector<Taken> parked;
  std::vector<int> numbers;
  {
    const MutexLock lock(mutex_);
    settled_ = true;
    parked.swap(parked_);
    for (const auto& [number, left] : left_) {
      numbers.push_back(number);
    }
  }
  for (const int number : numbers) {
    ServeLeft(number, settlement);
  }
  for (Taken& taken : parked) {
    HandleFirst(std::move(taken));
  }
}

void ErofsEvents::ServeLeft(int number, const Settlement& settlement) {
  std::vector<EventJournal::Left> events;
  {
    const MutexLock lock(mutex_);
    Left& left = left_.at(number);
    events = left.events;
    left.wants = 1;  // until all are counted
  }
  std::vector<Range> ranges;
  bool is_known = true;
  for (const EventJournal::Left& event : events) {
    is_known = RangesOfLeft(event, settlement, ranges) && is_known;
  }
  if (is_known) {
    {
      const MutexLock lock(mutex_);
      left_.at(number).wants += ranges.size();
    }
    for (const Range& range : ranges) {
      filler_.WantOnDisk(
          range.layer, range.offset, range.bytes,
          [self = shared_from_this(), number](const Status& status,
                                              const std::shared_ptr<const HeldBytes>& /*none*/) {
            self->FinishLeft(number, status);
          });
    }
  }
  FinishLeft(number,
             is_known ? OkStatus()
                      : MakeStatus(StatusCode::kNotFound, "an event that was left is of no layer"));
}

// False: there is no telling.
bool ErofsEvents::RangesOfLeft(const EventJournal::Left& event, const Settlement& settlement,
                               std::vector<Range>& ranges) const {
  std::vector<std::shared_ptr<FillLayer>> layers;
  if (event.layer.has_value()) {
    std::shared_ptr<FillLayer> layer = Find(*event.layer);
    if (layer == nullptr) {
      return settlement.is_complete(*event.layer);
    }
    layers.push_back(std::move(layer));
  } else if (settlement.has_unknown) {
    return false;
  } else {
    // It is of an image that is marked: of one of these, or of one that has every byte.
    const MutexLock lock(mutex_);
    for (const auto& [inode, entry] : layers_) {
      if (entry.layer != nullptr) {
        layers.push_back(entry.layer);
      }
    }
  }
  for (const std::shared_ptr<FillLayer>& layer : layers) {
    Range range = RangeOf(layer, event.event);
    if (range.bytes != 0) {
      ranges.push_back(std::move(range));
    }
  }
  return true;
}

void ErofsEvents::FinishLeft(int number, const Status& status) {
  if (!Begin()) {
    return;
  }
  if (!status.ok() && status.code() != StatusCode::kCancelled) {
    Denied(StatusMessage(status));
  }
  bool is_last = false;
  bool allow = false;
  std::vector<EventJournal::Left> events;
  {
    const MutexLock lock(mutex_);
    Left& left = left_.at(number);
    left.failed = left.failed || !status.ok();
    left.cancelled = left.cancelled || status.code() == StatusCode::kCancelled;
    is_last = --left.wants == 0 && !left.cancelled;
    allow = !left.failed;
    events = left.events;
  }
  if (is_last) {
    for (const EventJournal::Left& event : events) {
      Write(event.slot, number, allow);
    }
    ReleaseLeft(number);
  }
  End();
}

// The number has no meaning of its own any more.
void ErofsEvents::ReleaseLeft(int number) {
  Left left;
  {
    const MutexLock lock(mutex_);
    left = std::move(left_.extract(number).mapped());
    left_numbers_ = left_.size();
  }
  left.occupied.Reset();
  for (Taken& taken : left.behind) {
    HandleFirst(std::move(taken));
  }
}

}  // namespace strata
