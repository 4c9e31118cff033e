// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fuse_layers.h"

#include <utility>

namespace strata {

bool FuseLayers::Add(const std::shared_ptr<FillLayer>& layer) {
  const uint64_t number = layer->image().number();
  std::shared_ptr<Layer> replaced;  // goes away without the lock
  const MutexLock lock(mutex_);
  std::shared_ptr<Layer>& place = layers_[number];
  if (place == nullptr) {
    place = std::make_shared<Layer>(layer);
    return true;
  }
  if (place->filled_ != layer) {
    // The kernel's look-ups are of the number.
    replaced = std::exchange(place, std::make_shared<Layer>(layer));
    place->lookups_ = replaced->lookups_.load();
    return true;
  }
  return place->withdrawn_.exchange(false);
}

std::shared_ptr<FuseLayers::Layer> FuseLayers::Find(uint64_t number) const {
  const MutexLock lock(mutex_);
  const auto found = layers_.find(number);
  return found == layers_.end() ? nullptr : found->second;
}

std::shared_ptr<FuseLayers::Layer> FuseLayers::Enter(uint64_t number) {
  const MutexLock lock(mutex_);
  const auto found = layers_.find(number);
  if (found == layers_.end() || found->second->withdrawn_) {
    return nullptr;
  }
  found->second->CountLookup();
  return found->second;
}

void FuseLayers::Forget(uint64_t number, uint64_t nid, uint64_t lookups) {
  const std::shared_ptr<Layer> layer = Find(number);
  if (layer == nullptr) {
    return;
  }
  if (is_counted_) {
    Uncount(number, lookups);
  } else if (nid == layer->image().tree().root()) {
    Erase(*layer);
  }
}

void FuseLayers::Uncount(uint64_t number, uint64_t lookups) {
  const std::shared_ptr<Layer> layer = Find(number);
  if (layer != nullptr && is_counted_ && layer->lookups_.fetch_sub(lookups) == lookups) {
    Erase(*layer);
  }
}

std::shared_ptr<FuseLayers::Layer> FuseLayers::Withdraw(uint64_t number) {
  std::shared_ptr<Layer> layer = Find(number);
  if (layer != nullptr) {
    layer->withdrawn_ = true;
    if (is_counted_) {
      Erase(*layer);
    }
  }
  return layer;
}

void FuseLayers::LetGo(uint64_t number) {
  if (const std::shared_ptr<Layer> layer = Find(number); layer != nullptr) {
    Erase(*layer);
  }
}

// Where it is withdrawn and nothing of it is counted.
void FuseLayers::Erase(const Layer& layer) {
  const MutexLock lock(mutex_);
  const auto found = layers_.find(layer.image().number());
  if (found != layers_.end() && found->second.get() == &layer && layer.withdrawn_ &&
      (!is_counted_ || layer.lookups_ == 0)) {
    layers_.erase(found);  // the caller has it too, so that it does not end under the lock
  }
}

std::vector<std::shared_ptr<FuseLayers::Layer>> FuseLayers::List() const {
  std::vector<std::shared_ptr<Layer>> layers;
  const MutexLock lock(mutex_);
  layers.reserve(layers_.size());
  for (const auto& [number, layer] : layers_) {
    layers.push_back(layer);
  }
  return layers;
}

}  // namespace strata
