// SPDX-License-Identifier: Apache-2.0
//
// LayerShelf: the layers that are on disk: opened, put there, found, shown, fetched and evicted.
// LayerStore is this and the registry. Safe from any thread; nothing here asks a network.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/lazy/layer_directory.h"
#include "snapshotters/lazy/layer_display.h"
#include "snapshotters/lazy/layer_eviction.h"
#include "snapshotters/lazy/layer_mounts.h"
#include "snapshotters/lazy/layer_resolver.h"
#include "snapshotters/lazy/layer_store.h"
#include "snapshotters/lazy/layer_table.h"
#include "snapshotters/lazy/task_queue.h"

namespace strata {

class ShelfUse final : public LayerStore::Use {
 public:
  // `layer->uses` counts this already.
  explicit ShelfUse(std::shared_ptr<StoredLayer> layer) : layer_(std::move(layer)) {}
  ~ShelfUse() override { layer_->uses.fetch_sub(1, std::memory_order_acq_rel); }
  ShelfUse(const ShelfUse&) = delete;
  ShelfUse& operator=(const ShelfUse&) = delete;

  [[nodiscard]] uint64_t number() const override { return layer_->number(); }
  [[nodiscard]] FillLayer& layer() override { return *layer_->fill; }
  [[nodiscard]] const std::shared_ptr<StoredLayer>& stored() const { return layer_; }

 private:
  const std::shared_ptr<StoredLayer> layer_;
};
using ShelfUsePtr = std::shared_ptr<ShelfUse>;

class LayerShelf {
 public:
  using LayerPtr = std::shared_ptr<StoredLayer>;

  // As LayerStore::Open has it.
  static StatusOr<std::unique_ptr<LayerShelf>> Open(const LayerStoreOptions& options,
                                                    BlobClient& blobs, Filler& filler,
                                                    const LayerPresenters& presenters);
  ~LayerShelf();
  LayerShelf(const LayerShelf&) = delete;
  LayerShelf& operator=(const LayerShelf&) = delete;

  // The layer that answers the question; nullptr when there is none. Not shown by this.
  ShelfUsePtr Match(const LayerQuestion& question);
  bool Has(const LayerQuestion& question);
  // NotFound, or DataLoss when it was set aside. Not shown by this.
  StatusOr<ShelfUsePtr> Find(uint64_t number);
  // Makes the layer, unless the same is there. Errors: reasons kBadLayer, kLimits, kDisk.
  StatusOr<ShelfUsePtr> Put(ResolvedLayer resolved);

  // Mounts the layer at its path if it is not; waits for another who does.
  Status Show(const LayerPtr& layer, Deadline deadline);
  void Prefetch(const LayerPtr& layer, const LayerRequest& request);
  void FetchRest(const LayerPtr& layer);

  [[nodiscard]] std::string PathOf(uint64_t number) const { return display_->PathOf(number); }
  StatusOr<LayerStore::Size> SizeOf(uint64_t number);
  std::vector<LayerStore::Row> Rows();
  LayerStore::Shown CountShown();
  void FetchAll();
  void Reclaim(bool all);

 private:
  LayerShelf(const LayerStoreOptions& options, BlobClient& blobs, Filler& filler,
             std::unique_ptr<LayerDirectory> directory, std::unique_ptr<LayerDisplay> display);
  Status Start(ImageFiles* files);
  LayerTable OpenFound(ImageFiles& files);
  void TakeOver(const LayerTable& table, const LayerMounts& mounts);
  void ShowFound(const LayerPtr& layer, bool is_wanted, size_t stacked);
  LayerPtr AddToFiller(std::shared_ptr<LayerImage> image);

  ShelfUsePtr BeginUse(const LayerPtr& layer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ShelfUsePtr FindSame(const LayerSource& source);
  StatusOr<LayerPtr> Build(ResolvedLayer resolved);
  void NoteComplete(uint64_t number);

  [[nodiscard]] StatusOr<std::set<uint64_t>> Referenced() const;
  void NoteLastUse(uint64_t number, TimeNs last_used) const;
  void ReclaimNow();
  LayerPtr TakeIfIdle(uint64_t number, uint64_t touches);

  const LayerStoreOptions options_;
  BlobClient& blobs_;
  Filler& filler_;
  const std::unique_ptr<LayerDirectory> directory_;
  const std::unique_ptr<LayerDisplay> display_;
  // A callback of the filler may come when this is gone: what it posts is dropped then.
  const std::shared_ptr<TaskQueue> background_ = std::make_shared<TaskQueue>(1);
  LayerEviction eviction_;

  // Never held across I/O.
  Mutex mutex_;
  CondVar changed_;
  LayerTable table_ ABSL_GUARDED_BY(mutex_);
  bool reclaiming_ ABSL_GUARDED_BY(mutex_) = false;
  bool reclaim_all_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace strata
