// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/erofs_events.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "snapshotters/base/log.h"
#include "snapshotters/lazy/fill_plan.h"

namespace strata {
namespace {

constexpr std::chrono::seconds kLogInterval{1};
// While layers are being opened, so many slots are kept free of events that wait for that: opening
// one takes an event, too.
constexpr uint32_t kSlotsForOpening = 64;

}  // namespace

// --- taking events

void ErofsEvents::TakeEvents() {
  while (!stopping_.load(std::memory_order_acquire)) {
    const std::optional<uint32_t> slot = journal_->Take();
    if (!slot.has_value()) {
      return;
    }
    const StatusOr<FanotifyGroup::Event> event = group_.Read(journal_->buffer(*slot));
    if (!event.ok()) {
      journal_->Clear(*slot);
      if (event.status().code() != StatusCode::kCancelled) {
        Denied(StatusMessage(event.status()));  // the kernel has done it
      }
      continue;
    }
    events_.fetch_add(1, std::memory_order_relaxed);
    Handle({*slot, *event, UniqueFd(event->fd)});
  }
}

void ErofsEvents::Stop() {
  stopping_ = true;
  journal_->Stop();
}

void ErofsEvents::Handle(Taken taken) {
  if (!taken.fd.valid()) {
    journal_->Clear(taken.slot);
    Denied("the kernel could not keep an event");
    return;
  }
  if (left_numbers_.load(std::memory_order_acquire) != 0 && QueuesBehindLeft(taken)) {
    return;
  }
  HandleFirst(std::move(taken));
}

bool ErofsEvents::QueuesBehindLeft(Taken& taken) {
  const MutexLock lock(mutex_);
  const auto found = left_.find(taken.event.fd);
  if (found == left_.end()) {
    return false;
  }
  found->second.behind.push_back(std::move(taken));
  return true;
}

// Of the events under its number it is the one that an answer reaches.
void ErofsEvents::HandleFirst(Taken taken) {
  const StatusOr<InodeKey> inode = InodeOf(taken.fd.get());
  if (!inode.ok()) {
    Denied(StatusMessage(inode.status()));
    Answer(std::move(taken), /*allow=*/false);
    return;
  }
  if (files_.IsOurs(*inode, taken.event)) {
    Answer(std::move(taken), /*allow=*/true);
    return;
  }
  Layer layer;
  bool is_known = false;
  {
    const MutexLock lock(mutex_);
    const auto found = layers_.find(*inode);
    is_known = found != layers_.end();
    if (is_known) {
      layer = found->second;
    } else if (!settled_ && journal_->free() > kSlotsForOpening) {
      parked_.push_back(std::move(taken));
      return;
    }
  }
  if (is_known) {
    Serve(std::move(taken), layer);
    return;
  }
  Denied("an event is of no layer");
  Answer(std::move(taken), /*allow=*/false);
}

ErofsEvents::Range ErofsEvents::RangeOf(const std::shared_ptr<FillLayer>& layer,
                                        const FanotifyGroup::Event& event) {
  const uint64_t end = layer->image().chunks().image_bytes();
  if (event.bytes == 0) {
    return {layer, 0, end};
  }
  const uint64_t offset = std::min(event.offset, end);
  return {layer, offset, std::min(event.bytes, end - offset)};
}

void ErofsEvents::Serve(Taken taken, const Layer& layer) {
  if (layer.layer == nullptr) {
    Answer(std::move(taken), /*allow=*/true);
    return;
  }
  const uint32_t slot = taken.slot;
  journal_->SetLayer(slot, layer.number);
  const Range range = RangeOf(layer.layer, taken.event);
  if (range.bytes == 0 || filler_.IsPresent(*layer.layer, range.offset, range.bytes)) {
    Answer(std::move(taken), /*allow=*/true);
    return;
  }
  LayerImage& image = layer.layer->image();
  const ChunkRange chunks = ChunksIn(image.chunks(), range.offset, range.bytes);
  if (image.extents().FirstAbsent(chunks.first, chunks.end) != chunks.end) {
    waited_.fetch_add(1, std::memory_order_relaxed);
  }
  {
    const MutexLock lock(mutex_);
    waiting_.insert_or_assign(slot, std::move(taken));
  }
  filler_.WantOnDisk(layer.layer, range.offset, range.bytes,
                     [self = shared_from_this(), slot](
                         const Status& status, const std::shared_ptr<const HeldBytes>& /*none*/) {
                       self->Finish(slot, status);
                     });
}

// --- answers

void ErofsEvents::Finish(uint32_t slot, const Status& status) {
  // The filler ends: a successor has another.
  if (status.code() == StatusCode::kCancelled || !Begin()) {
    return;
  }
  Taken taken;
  {
    const MutexLock lock(mutex_);
    taken = std::move(waiting_.extract(slot).mapped());
  }
  if (!status.ok()) {
    Denied(StatusMessage(status));
  }
  Answer(std::move(taken), status.ok());
  End();
}

void ErofsEvents::Answer(Taken taken, bool allow) {
  Write(taken.slot, taken.event.fd, allow);
  taken.fd.Reset();  // after both, or the number would be another event's
}

void ErofsEvents::Write(uint32_t slot, int number, bool allow) {
  journal_->SetAnswer(slot, allow);
  const Status status = allow ? group_.Allow(number) : group_.Deny(number);
  // NotFound: the event has been answered before, by one who was killed then.
  if (!status.ok() && status.code() != StatusCode::kNotFound) {
    LogError("event is not answered, ignoring", {{"error", std::string(StatusMessage(status))}});
  }
  journal_->Clear(slot);
}

// The answer is EIO.
void ErofsEvents::Denied(std::string_view why) {
  const uint64_t count = denied_.fetch_add(1, std::memory_order_relaxed) + 1;
  {
    const MutexLock lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (last_log_ != std::chrono::steady_clock::time_point() && now - last_log_ < kLogInterval) {
      return;
    }
    last_log_ = now;
  }
  LogError("a read of a lazy layer fails",
           {{"error", std::string(why)}, {"denied", std::to_string(count)}});
}

bool ErofsEvents::Begin() {
  const MutexLock lock(mutex_);
  if (closed_) {
    return false;
  }
  ++answering_;
  return true;
}

void ErofsEvents::End() {
  const MutexLock lock(mutex_);
  --answering_;
  changed_.SignalAll();
}

void ErofsEvents::Close() {
  std::vector<Taken> parked;
  std::unordered_map<uint32_t, Taken> waiting;
  std::map<int, Left> left;
  const MutexLock lock(mutex_);
  closed_ = true;
  while (answering_ != 0) {
    changed_.Wait(mutex_);
  }
  parked.swap(parked_);
  waiting.swap(waiting_);
  left.swap(left_);
  layers_.clear();
}

ErofsCounters ErofsEvents::counters() const {
  ErofsCounters counters;
  counters.events = events_.load(std::memory_order_relaxed);
  counters.waited = waited_.load(std::memory_order_relaxed);
  counters.denied = denied_.load(std::memory_order_relaxed);
  counters.inherited = inherited_.load(std::memory_order_relaxed);
  if (const auto marked = group_.Marked(); marked.ok()) {
    counters.marked = marked->size();
  }
  return counters;
}

// --- layers

StatusOr<bool> ErofsEvents::Add(const std::shared_ptr<FillLayer>& layer) {
  STRATA_ASSIGN_OR_RETURN(const InodeKey inode, InodeOf(layer->image().image_fd()));
  const uint64_t number = layer->image().number();
  const MutexLock lock(mutex_);
  Layer& entry = layers_[inode];  // may be there for a file that is gone
  if (entry.layer == layer) {
    return false;
  }
  entry = {number, layer};
  return true;
}

std::shared_ptr<FillLayer> ErofsEvents::Find(uint64_t number) const {
  const MutexLock lock(mutex_);
  for (const auto& [inode, entry] : layers_) {
    if (entry.number == number && entry.layer != nullptr) {
      return entry.layer;
    }
  }
  return nullptr;
}

bool ErofsEvents::Knows(const InodeKey& inode) const {
  const MutexLock lock(mutex_);
  return layers_.contains(inode);
}

void ErofsEvents::SetComplete(uint64_t number) {
  std::vector<std::shared_ptr<FillLayer>> let_go;  // outside of the lock
  const MutexLock lock(mutex_);
  for (auto& [inode, entry] : layers_) {
    if (entry.number == number) {
      let_go.push_back(std::move(entry.layer));
      entry.layer = nullptr;
    }
  }
}

void ErofsEvents::AddComplete(const InodeKey& inode) {
  const MutexLock lock(mutex_);
  layers_.emplace(inode, Layer{});
}

void ErofsEvents::Remove(uint64_t number) {
  std::vector<std::shared_ptr<FillLayer>> let_go;  // outside of the lock
  const MutexLock lock(mutex_);
  for (auto at = layers_.begin(); at != layers_.end();) {
    if (at->second.number == number) {
      let_go.push_back(std::move(at->second.layer));
      at = layers_.erase(at);
    } else {
      ++at;
    }
  }
}

}  // namespace strata
