// SPDX-License-Identifier: Apache-2.0
//
// FillSchedule: which spans are wanted, by whom, and what is asked for next. Every span is in it at
// most once, from when it is wanted until it is present or given up: this is how wants join. Does
// no I/O and calls nobody. Not thread-safe: its owner locks.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/fill_layer.h"
#include "snapshotters/lazy/fill_plan.h"
#include "snapshotters/lazy/fill_share.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/held_range.h"

namespace strata {

using FillTime = std::chrono::steady_clock::time_point;

// Of the image.
struct WantedRange {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  bool on_disk = false;  // bytes in memory are of no use to the reader
};

// A call of Want that could not be answered at once.
struct FillWaiter {
  WantedRange range;
  Filler::Callback callback;
  size_t spans_left = 0;
  Status last_error;  // what kept it waiting
  Status result;
  std::shared_ptr<HeldRange> held;
  FillTime deadline;
  bool done = false;
  std::list<std::shared_ptr<FillWaiter>>::iterator place;  // among those that wait
};
using FillWaiters = std::vector<std::shared_ptr<FillWaiter>>;

struct SpanFill {
  enum class Stage { kQueued, kResting, kUnderWay };

  std::shared_ptr<LayerFill> layer;
  uint32_t index = 0;
  TableSpan span;
  FillClass wanted = FillClass::kBackground;  // the most urgent class that wants it
  Stage stage = Stage::kQueued;
  std::list<std::shared_ptr<SpanFill>>::iterator place;  // in the queue of its class
  // While it rests.
  std::multimap<FillTime, std::shared_ptr<SpanFill>>::iterator rest;
  bool for_disk = false;  // it rests because the disk was full
  FillTime write_began;   // of who decodes it
  FillWaiters waiters;
  int attempts = 0;                  // that failed for reasons that may pass
  bool spoiled = false;              // its bytes did not hold, once
  std::unique_ptr<uint8_t[]> bytes;  // of the blob: the receiver's, then the decoder's
  std::string host;                  // that they came from
};

struct FillRequest {
  std::shared_ptr<LayerFill> layer;
  FillClass fill_class = FillClass::kDemand;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::vector<std::shared_ptr<SpanFill>> fills;  // in the order of the blob
};

class FillSchedule {
 public:
  FillSchedule(const Filler::Options& options, uint32_t seed);

  void Know(const std::shared_ptr<LayerFill>& layer);
  // Wants spans that have an absent chunk; `waiter`, if any, waits for all of them.
  void Want(const std::shared_ptr<LayerFill>& layer, const std::vector<uint32_t>& spans,
            FillClass fill_class, const std::shared_ptr<FillWaiter>& waiter, FillTime now);
  // Wants all spans before `end`: kPrefetch or kBackground.
  void Walk(const std::shared_ptr<LayerFill>& layer, FillClass fill_class, uint32_t end);
  // What nobody waits for is not asked for any more.
  void Forget(LayerFill& layer);
  // All pauses end.
  void Nudge(FillTime now);

  // The next request to be made now; `held` bytes of memory are in use elsewhere.
  std::optional<FillRequest> Next(FillTime now, uint64_t held);
  // The request has been answered, whatever became of its spans.
  void EndRequest(FillClass fill_class) { share_.EndRequest(fill_class); }
  [[nodiscard]] static bool HasWaiters(const SpanFill& fill);

  // Each ends a span that is under way, one way or the other; they return those who need wait no
  // longer.
  FillWaiters Filled(SpanFill& fill, FillTime now);
  // The blob could not be had. Tried again while somebody waits and it may help.
  FillWaiters FetchFailed(const std::shared_ptr<SpanFill>& fill, const Status& status,
                          FillTime now);
  // The bytes do not hold. Fetched once more, then given up.
  FillWaiters Spoiled(const std::shared_ptr<SpanFill>& fill, const Status& status);
  // The image cannot be written: given up. Or, with `held`: those who can are released to read what
  // they hold, and the rest wait on: tried again as above.
  FillWaiters NotWritten(const std::shared_ptr<SpanFill>& fill, const Status& status, bool held,
                         FillTime now);
  // Ended for want of anybody who waits.
  void Dropped(const std::shared_ptr<SpanFill>& fill);

  // What is due at `now`; waiters whose patience is over.
  FillWaiters Expire(FillTime now);
  // When Expire or Next have to be called again though nothing happens.
  [[nodiscard]] FillTime NextTime() const;
  // Everybody who waits; nothing is left.
  FillWaiters Stop();

 private:
  using Key = std::pair<const LayerFill*, uint32_t>;
  using Queue = std::list<std::shared_ptr<SpanFill>>;
  using Walks = std::list<std::shared_ptr<LayerFill>>;

  [[nodiscard]] Queue& QueueOf(FillClass fill_class) {
    return queues_[static_cast<size_t>(fill_class)];
  }
  [[nodiscard]] Walks& WalksOf(FillClass fill_class) {
    return fill_class == FillClass::kPrefetch ? prefetches_ : backgrounds_;
  }
  [[nodiscard]] static FillWalk& WalkOf(LayerFill& layer, FillClass fill_class) {
    return fill_class == FillClass::kPrefetch ? layer.progress.prefetch : layer.progress.background;
  }
  static bool IsHeldUp(const LayerFill& layer, FillTime now) {
    return layer.progress.pause_until > now;
  }

  void Enqueue(const std::shared_ptr<SpanFill>& fill);
  void Unqueue(SpanFill& fill);
  std::optional<FillRequest> Build(FillClass fill_class, FillTime now, uint64_t held);
  FillRequest FromQueue(FillClass fill_class, uint64_t room);
  std::optional<FillRequest> FromWalk(const std::shared_ptr<LayerFill>& layer, FillClass fill_class,
                                      uint64_t room);
  FillRequest Begin(FillClass fill_class, const FetchGroup& group,
                    std::vector<std::shared_ptr<SpanFill>> fills);
  // The span leaves; walks come back to it if `again`.
  void Remove(SpanFill& fill, bool again);
  void Rewind(LayerFill& layer, uint32_t span);
  void Pause(LayerFill& layer, FillTime now);
  // Its waiters wait on, and have `reason` to.
  void Rest(const std::shared_ptr<SpanFill>& fill, const Status& reason, FillTime now);
  FillWaiters GiveUp(SpanFill& fill, const Status& status, bool again);
  void Done(FillWaiter& waiter, Status result);

  const Filler::Options options_;
  FillShare share_;
  std::map<Key, std::shared_ptr<SpanFill>> fills_;
  std::array<Queue, kFillClasses> queues_;
  uint64_t read_ahead_queued_ = 0;  // bytes of the blob
  Walks prefetches_;
  Walks backgrounds_;
  std::multimap<FillTime, std::shared_ptr<SpanFill>> resting_;
  // Spans that failed together rest together, so that they are asked for together again.
  FillTime rest_begin_;
  FillTime rest_end_;
  std::list<std::shared_ptr<FillWaiter>> waiting_;  // by deadline
  std::vector<std::weak_ptr<LayerFill>> layers_;
  std::minstd_rand random_;
};

}  // namespace strata
