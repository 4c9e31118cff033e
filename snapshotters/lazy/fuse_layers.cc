// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fuse_layers.h"

#include <utility>

namespace strata {

bool FuseLayers::Add(const std::shared_ptr<FillLayer>& layer) {
  const uint64_t number = layer->image().number();
  std::shared_ptr<Layer> added = std::make_shared<Layer>(layer);
  const MutexLock lock(mutex_);
  std::shared_ptr<Layer>& place = layers_[number];
  if (place == nullptr) {
    place = std::move(added);
    return true;
  }
  if (place->filled_ != layer) {
    // The kernel's look-ups are of the number.
    added->lookups_ = place->lookups_.load();
    place.swap(added);  // the old one goes away without the lock
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

void FuseLayers::Forget(uint64_t number, uint64_t lookups) {
  const std::shared_ptr<Layer> layer = Find(number);
  if (layer == nullptr || layer->lookups_.fetch_sub(lookups) != lookups || !layer->withdrawn_) {
    return;
  }
  const MutexLock lock(mutex_);
  const auto found = layers_.find(number);
  if (found != layers_.end() && found->second == layer && layer->withdrawn_ &&
      layer->lookups_ == 0) {
    layers_.erase(found);  // `layer` ends it after the lock
  }
}

bool FuseLayers::Withdraw(uint64_t number) {
  std::shared_ptr<Layer> unused;
  const MutexLock lock(mutex_);
  const auto found = layers_.find(number);
  if (found == layers_.end()) {
    return false;
  }
  found->second->withdrawn_ = true;
  if (found->second->lookups_ == 0) {
    unused = std::move(found->second);
    layers_.erase(found);
  }
  return true;
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
