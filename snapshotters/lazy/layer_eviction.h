// SPDX-License-Identifier: Apache-2.0
//
// LayerEviction: how layers go that nobody refers to: unmounted, given up by their presenter,
// unlinked, in this order. One whose image the kernel still reads lingers on the disk, served as
// before, until it does not. Safe from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/layer_directory.h"
#include "snapshotters/lazy/layer_display.h"
#include "snapshotters/lazy/layer_table.h"
#include "snapshotters/lazy/task_queue.h"

namespace strata {

class LayerEviction {
 public:
  using Layer = LayerTable::Layer;

  // All must outlive this; `background` is stopped before it goes. Layers that linger are tried
  // again there, every `interval`.
  LayerEviction(LayerDisplay& display, LayerDirectory& directory, Filler& filler,
                TaskQueue& background, std::chrono::milliseconds interval)
      : display_(display),
        directory_(directory),
        filler_(filler),
        background_(background),
        interval_(interval) {}

  // The layer is in no table any more. What is in the way of it is logged.
  void Evict(const Layer& layer);
  // Tries again with those that linger; whether one of them is gone now. From the background.
  bool Retry();

  [[nodiscard]] std::vector<Layer> lingering() const;
  // Of those; nullptr: none of the number.
  [[nodiscard]] Layer Find(uint64_t number) const;

 private:
  bool Try(const Layer& layer);
  void RetryLater();

  LayerDisplay& display_;
  LayerDirectory& directory_;
  Filler& filler_;
  TaskQueue& background_;
  const std::chrono::milliseconds interval_;

  mutable Mutex mutex_;
  std::vector<Layer> lingering_ ABSL_GUARDED_BY(mutex_);
  bool retry_waits_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace strata
