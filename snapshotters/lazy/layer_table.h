// SPDX-License-Identifier: Apache-2.0
//
// LayerTable: the layers that are on disk and open, and which of them answers a request. Plain
// data: its owner's mutex guards it and what is said so of StoredLayer.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/base/clock.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/layer_resolver.h"
#include "snapshotters/lazy/layer_source.h"
#include "snapshotters/lazy/layer_store.h"

namespace strata {

enum class ShownBy {
  kNobody,
  kFuse,     // the presenter of that name
  kFilling,  // the kernel's EROFS, while a presenter has the image filled
  kErofs,    // that alone: the layer is complete
};

struct StoredLayer {
  explicit StoredLayer(std::shared_ptr<FillLayer> fill_in) : fill(std::move(fill_in)) {}

  [[nodiscard]] LayerImage& image() const { return fill->image(); }
  [[nodiscard]] uint64_t number() const { return image().number(); }
  [[nodiscard]] const LayerSource& source() const { return image().source(); }

  const std::shared_ptr<FillLayer> fill;
  // Counted up under the mutex only, so that with it a 0 stays one.
  std::atomic<int> uses{0};

  // Guarded by the mutex of the table's owner.
  ShownBy shown = ShownBy::kNobody;
  std::string why_fuse;   // of a layer that could not be shown by EROFS
  bool changing = false;  // somebody mounts it right now
  uint64_t touches = 0;   // how often a use began
  TimeNs last_used = 0;
  TimeNs noted_use = 0;   // what the disk says, or soon will
  bool fetching = false;  // all of it is being fetched
  bool prefetching = false;
};

// What the layer itself tells. Asks the disk.
LayerStore::Row RowOf(const StoredLayer& layer);

// Whether a layer of this source is what the question asks for: what the manifest pins holds, or
// nothing has to and it is from the same repository. A question ahead of its pin is content with
// any that a pin may fit.
bool Answers(const LayerSource& source, const LayerQuestion& question, bool user_xattr);

// Whether both are one layer.
bool IsSameLayer(const LayerSource& a, const LayerSource& b);

class LayerTable {
 public:
  using Layer = std::shared_ptr<StoredLayer>;

  void Add(const Layer& layer);
  void Remove(uint64_t number);
  // All nullptr when there is none.
  [[nodiscard]] Layer Find(uint64_t number) const;
  [[nodiscard]] Layer Match(const LayerQuestion& question, bool user_xattr) const;
  [[nodiscard]] Layer Same(const LayerSource& source) const;
  // By number.
  [[nodiscard]] std::vector<Layer> all() const;

 private:
  std::map<uint64_t, Layer> by_number_;
  std::multimap<std::string, Layer> by_digest_;
};

}  // namespace strata
