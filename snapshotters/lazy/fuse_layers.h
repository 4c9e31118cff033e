// SPDX-License-Identifier: Apache-2.0
//
// FuseLayers: the layers of one FUSE mount by their numbers. A layer that was withdrawn stays
// until the kernel has forgotten the last node of it, since files may still be open (with opens
// answered once for all, nothing else tells). What the kernel has looked up is counted, except in
// the mount of a predecessor, whose count is lost: there the layer's top directory tells, which the
// kernel keeps as long as anything in it. Safe from any thread.
#pragma once

#include <absl/base/thread_annotations.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/filler.h"

namespace strata {

class FuseLayers {
 public:
  class Layer {
   public:
    explicit Layer(std::shared_ptr<FillLayer> layer) : filled_(std::move(layer)) {}
    [[nodiscard]] const std::shared_ptr<FillLayer>& filled() const { return filled_; }
    [[nodiscard]] const LayerImage& image() const { return filled_->image(); }
    // The kernel learns of one of its nodes; to be called before it does.
    void CountLookup() { lookups_.fetch_add(1, std::memory_order_relaxed); }

   private:
    friend class FuseLayers;
    const std::shared_ptr<FillLayer> filled_;
    std::atomic<uint64_t> lookups_{0};
    std::atomic<bool> withdrawn_{false};
  };

  // A predecessor has answered look-ups. Before any layer is there.
  void StopCounting() { is_counted_ = false; }
  [[nodiscard]] bool is_counted() const { return is_counted_; }

  // Whether it was not there before.
  bool Add(const std::shared_ptr<FillLayer>& layer);
  // Null: unknown. Withdrawn layers are found.
  [[nodiscard]] std::shared_ptr<Layer> Find(uint64_t number) const;
  // The same for a look-up by name, which withdrawn layers have not; counted.
  std::shared_ptr<Layer> Enter(uint64_t number);
  // The kernel gives up so many look-ups of the node.
  void Forget(uint64_t number, uint64_t nid, uint64_t lookups);
  // So many that were counted did not come to the kernel.
  void Uncount(uint64_t number, uint64_t lookups);
  // What was there; null: nothing.
  std::shared_ptr<Layer> Withdraw(uint64_t number);
  // A withdrawn one, of which the kernel has nothing.
  void LetGo(uint64_t number);
  [[nodiscard]] std::vector<std::shared_ptr<Layer>> List() const;

 private:
  void Erase(const Layer& layer);

  std::atomic<bool> is_counted_{true};
  mutable Mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<Layer>> layers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace strata
