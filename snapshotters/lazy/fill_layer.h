// SPDX-License-Identifier: Apache-2.0
//
// LayerFill: what the filler keeps of a layer. Safe from any thread but for what says otherwise.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/read_ahead.h"

namespace strata {

// Spans that are to be fetched in the order of the blob; those before the cursor were looked at.
struct FillWalk {
  uint32_t cursor = 0;
  uint32_t end = 0;
  bool listed = false;  // its class has it among its walks
};

// What FillSchedule keeps of a layer, under the mutex of the schedule's owner.
struct FillProgress {
  FillWalk prefetch;
  FillWalk background;
  // Nobody is helped by asking earlier, except readers.
  std::chrono::steady_clock::time_point pause_until;
  std::chrono::milliseconds pause{0};
  std::set<uint32_t> given_up;  // spans whose bytes did not hold: walks leave them out
  std::chrono::steady_clock::time_point last_written;
  bool known = false;  // to the schedule
};

class LayerFill : public FillLayer {
 public:
  LayerFill(std::shared_ptr<LayerImage> image, std::shared_ptr<Blob> blob,
            Filler::CompleteCallback on_complete, uint64_t read_ahead_bytes);

  LayerImage& image() override { return *image_; }
  [[nodiscard]] State state() const override;

  [[nodiscard]] const std::shared_ptr<LayerImage>& shared_image() const { return image_; }
  [[nodiscard]] Blob& blob() { return *blob_; }

  void CountFetched(uint64_t bytes) { fetched_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  void NoteError(const Status& status, bool given_up);
  void SetDiskFull(bool full) { disk_full_.store(full, std::memory_order_relaxed); }
  [[nodiscard]] bool disk_full() const { return disk_full_.load(std::memory_order_relaxed); }
  // True once, after the layer has become complete under the filler's eyes.
  [[nodiscard]] bool TakeCompletion();
  void CallOnComplete() {
    if (on_complete_) {
      on_complete_(*this);
    }
  }
  // `status` with the names of the layer and of the part that was wanted.
  [[nodiscard]] Status Describe(const Status& status, uint32_t span) const;

  ReadAhead read_ahead;   // OnWant: under the mutex of the schedule's owner
  FillProgress progress;  // likewise
  std::atomic<bool> forgotten{false};

 private:
  const std::shared_ptr<LayerImage> image_;
  const std::shared_ptr<Blob> blob_;
  const Filler::CompleteCallback on_complete_;
  std::atomic<bool> completed_;
  std::atomic<bool> disk_full_{false};
  std::atomic<uint64_t> fetched_bytes_{0};
  mutable Mutex mutex_;
  uint64_t failures_ ABSL_GUARDED_BY(mutex_) = 0;
  Status last_error_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace strata
