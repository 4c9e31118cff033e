// SPDX-License-Identifier: Apache-2.0
//
// AnnouncedLayers: which layers are expected to be asked for because another layer of their image
// was: a client that prepares an image layer by layer names all that are left each time, and only
// the first time is news. Safe from any thread.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <unordered_set>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/layer_store.h"

namespace strata {

class AnnouncedLayers {
 public:
  // At most so many are remembered; the oldest are forgotten first.
  static constexpr size_t kMost = 4096;

  // Whether `layer` was not expected. Then its `neighbours` are from now on; else it is no longer,
  // so that the next pull of the image begins anew.
  bool IsFirst(const LayerRequest& layer, const std::vector<LayerRequest>& neighbours);

 private:
  static std::string KeyOf(const LayerRequest& layer);

  Mutex mutex_;
  std::unordered_set<std::string> expected_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::string> order_ ABSL_GUARDED_BY(mutex_);  // may name some that have been asked for
};

}  // namespace strata
