// SPDX-License-Identifier: Apache-2.0
//
// FillEngine: the machine behind Filler: makes the requests that its schedule says, decodes and
// stores what comes, and calls back. Shared by the filler and by requests that are under way, which
// may outlive it. Safe from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/decode_pool.h"
#include "snapshotters/lazy/fill_schedule.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/layer_persister.h"
#include "snapshotters/lazy/range_receiver.h"
#include "snapshotters/lazy/span_store.h"

namespace strata {

class FillEngine : public FetchOwner, public std::enable_shared_from_this<FillEngine> {
 public:
  FillEngine(const Filler::Options& options, Filler::SpaceCallback need_space);

  // To be called once, before it is let go and not from a callback. No callback comes afterwards.
  void Stop();

  void Know(const std::shared_ptr<LayerFill>& layer);
  void Want(const std::shared_ptr<LayerFill>& layer, const WantedRange& range,
            Filler::Callback callback);
  void Walk(const std::shared_ptr<LayerFill>& layer, FillClass fill_class, uint32_t end);
  void Nudge();
  void Forget(LayerFill& layer);
  [[nodiscard]] Filler::Counters counters() const;

  void CountReceived(LayerFill& layer, uint64_t bytes) override;
  bool IsWanted(const FillRequest& request, size_t first) override;
  void OnSpan(const std::shared_ptr<SpanFill>& fill) override;
  void OnEnd(const FillRequest& request, size_t first, const Status& status) override;

 private:
  // Asks for what comes after a range that was wanted.
  void LookAhead(const std::shared_ptr<LayerFill>& layer, const WantedRange& range, bool waits,
                 FillTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes all requests that may be made now.
  void Pump();
  void Send(FillRequest request, FillTime now);
  void Decode(const std::shared_ptr<SpanFill>& fill, DecodeScratch& scratch);
  FillWaiters Settle(const std::shared_ptr<SpanFill>& fill, const StoreResult& result,
                     std::span<const uint8_t> decoded) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives those who wait for the span, and can take it from memory, what could not be written.
  void Hold(const SpanFill& fill, const StoreResult& result, std::span<const uint8_t> decoded)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Release(const FillWaiters& waiters);
  // Errors come from threads that must not call back; this one does it for them, and wakes for what
  // is due.
  void RunTimer();

  struct AtomicCounters {
    std::atomic<uint64_t> wants{0};
    std::atomic<uint64_t> wants_absent{0};
    std::atomic<uint64_t> spans{0};
    std::atomic<uint64_t> requests{0};
    std::atomic<uint64_t> blob_bytes{0};
    std::atomic<uint64_t> image_bytes{0};
    std::atomic<uint64_t> mismatches{0};
  };

  const Filler::Options options_;
  const std::shared_ptr<std::atomic<uint64_t>> held_ = std::make_shared<std::atomic<uint64_t>>(0);
  AtomicCounters counters_;
  std::atomic<bool> stopping_{false};  // set under mutex_
  Mutex mutex_;
  CondVar timer_changed_;
  FillSchedule schedule_ ABSL_GUARDED_BY(mutex_);
  FillWaiters released_ ABSL_GUARDED_BY(mutex_);                   // for the timer's thread to call
  FillTime timer_time_ ABSL_GUARDED_BY(mutex_) = FillTime::max();  // when it wakes
  // Last: their threads use what is above.
  LayerPersister persister_;
  DecodePool pool_;
  std::thread timer_;
};

}  // namespace strata
