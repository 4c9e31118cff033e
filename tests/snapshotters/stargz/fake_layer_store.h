// SPDX-License-Identifier: Apache-2.0
//
// FakeLayerStore: a LayerStore that a test tells what there is to be had. Layers are directories of
// the root. For tests only; one thread at a time, but
// for Reclaim.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "snapshotters/base/unique_fd.h"
#include "snapshotters/lazy/layer_store.h"
#include "snapshotters/stargz/stargz_snapshotter.h"

namespace strata::testing {

// What outlives one opening of the store: what the "registry" has, and what the disk has.
struct FakeLayers {
  struct Layer {
    uint64_t number = 0;
    uint32_t uid = 0;  // of its root directory
    uint32_t gid = 0;
    LayerStore::Size size;
  };
  // Answers to Get, by digest; what is not there is kNotLazy.
  std::map<std::string, StatusOr<Layer>> answers;
  std::map<uint64_t, Layer> on_disk;

  std::vector<LayerRequest> asked;
  std::vector<std::vector<LayerRequest>> announced;
  std::atomic<int> reclaims{0};  // of which those of all layers:
  std::atomic<int> reclaims_of_all{0};
  std::function<void()> on_get;  // called by Get before it answers
  LayerRoot root;                // as the snapshotter opened it
  std::weak_ptr<LayerStore::Use> last_use;
};

// Opens the fake as StargzOptions want it; `layers` must outlive all.
std::function<StatusOr<std::unique_ptr<LayerStack>>(const LayerRoot&)> OpenFake(FakeLayers* layers);

}  // namespace strata::testing
