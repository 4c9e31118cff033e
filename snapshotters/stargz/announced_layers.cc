// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/stargz/announced_layers.h"

namespace strata {

std::string AnnouncedLayers::KeyOf(const LayerRequest& layer) {
  return layer.reference + "\n" + layer.digest;
}

bool AnnouncedLayers::IsFirst(const LayerRequest& layer,
                              const std::vector<LayerRequest>& neighbours) {
  const MutexLock lock(mutex_);
  if (expected_.erase(KeyOf(layer)) > 0) {
    return false;
  }
  for (const LayerRequest& neighbour : neighbours) {
    std::string key = KeyOf(neighbour);
    if (expected_.insert(key).second) {
      order_.push_back(std::move(key));
    }
  }
  while (order_.size() > kMost) {
    expected_.erase(order_.front());
    order_.pop_front();
  }
  return true;
}

}  // namespace strata
