// SPDX-License-Identifier: Apache-2.0
//
// LayerPersister: the thread that may wait for the disk: it persists what has become present, now
// and then, and calls back about it. Safe from any thread.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/layer_image.h"
#include "snapshotters/lazy/space_reserve.h"

namespace strata {

class LayerPersister {
 public:
  // `reserve`, if any, must outlive this.
  LayerPersister(std::chrono::milliseconds interval, std::function<void()> need_space,
                 SpaceReserve* reserve);
  ~LayerPersister() { Stop(); }
  LayerPersister(const LayerPersister&) = delete;
  LayerPersister& operator=(const LayerPersister&) = delete;

  // Something has become present: persisted within the interval. Keeps the image until then.
  void MarkDirty(const std::shared_ptr<LayerImage>& image);
  // Persists at once, and calls when that has worked.
  void MarkComplete(const std::shared_ptr<LayerImage>& image, std::function<void()> persisted);
  // Calls need_space, at most once a second.
  void NeedSpace();
  // Persists what is dirty and ends. Later marks are ignored.
  void Stop();

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Work {
    std::shared_ptr<LayerImage> image;
    std::function<void()> persisted;
    Time due;
  };
  using Works = std::map<const LayerImage*, Work>;

  void Run();
  [[nodiscard]] Time NextTime() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Works TakeDue(Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Persist(const Works& works, bool last);
  Status PersistOne(LayerImage& image);

  const std::chrono::milliseconds interval_;
  const std::function<void()> need_space_;
  SpaceReserve* const reserve_;
  Mutex mutex_;
  CondVar changed_;
  Works works_ ABSL_GUARDED_BY(mutex_);
  bool space_needed_ ABSL_GUARDED_BY(mutex_) = false;
  Time space_due_ ABSL_GUARDED_BY(mutex_);
  Time restore_due_ ABSL_GUARDED_BY(mutex_) = Time::max();
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace strata
