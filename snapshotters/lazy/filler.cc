// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/filler.h"

#include <utility>

#include "snapshotters/lazy/fill_engine.h"
#include "snapshotters/lazy/fill_plan.h"

namespace strata {
namespace {

class EngineFiller : public Filler {
 public:
  EngineFiller(const Options& options, SpaceCallback need_space)
      : options_(options), engine_(std::make_shared<FillEngine>(options, std::move(need_space))) {}
  ~EngineFiller() override { engine_->Stop(); }
  EngineFiller(const EngineFiller&) = delete;
  EngineFiller& operator=(const EngineFiller&) = delete;

  std::shared_ptr<FillLayer> Add(std::shared_ptr<LayerImage> image, std::shared_ptr<Blob> blob,
                                 CompleteCallback on_complete) override {
    auto layer = std::make_shared<LayerFill>(std::move(image), std::move(blob),
                                             std::move(on_complete), options_.read_ahead_bytes);
    engine_->Know(layer);
    return layer;
  }

  void Want(const std::shared_ptr<FillLayer>& layer, uint64_t offset, uint64_t bytes,
            Callback callback) override {
    engine_->Want(Of(layer), {.offset = offset, .bytes = bytes}, std::move(callback));
  }

  void WantOnDisk(const std::shared_ptr<FillLayer>& layer, uint64_t offset, uint64_t bytes,
                  Callback callback) override {
    engine_->Want(Of(layer), {.offset = offset, .bytes = bytes, .on_disk = true},
                  std::move(callback));
  }

  [[nodiscard]] bool IsPresent(FillLayer& layer, uint64_t offset, uint64_t bytes) override {
    const LayerImage& image = layer.image();
    if (image.extents().complete()) {
      return true;
    }
    const ChunkRange range = ChunksIn(image.chunks(), offset, bytes);
    return image.extents().FirstAbsent(range.first, range.end) == range.end &&
           !static_cast<LayerFill&>(layer).read_ahead.Watches(offset, bytes);
  }

  void Prefetch(const std::shared_ptr<FillLayer>& layer, uint64_t blob_end) override {
    engine_->Walk(Of(layer), FillClass::kPrefetch, layer->image().chunks().SpansBefore(blob_end));
  }

  void FetchAll(const std::shared_ptr<FillLayer>& layer) override {
    if (options_.background) {
      engine_->Walk(Of(layer), FillClass::kBackground, layer->image().chunks().spans());
    }
  }

  void Nudge() override { engine_->Nudge(); }

  void Forget(const std::shared_ptr<FillLayer>& layer) override { engine_->Forget(*Of(layer)); }

  [[nodiscard]] Counters counters() const override { return engine_->counters(); }

 private:
  // Add makes all of them.
  static std::shared_ptr<LayerFill> Of(const std::shared_ptr<FillLayer>& layer) {
    return std::static_pointer_cast<LayerFill>(layer);
  }

  const Options options_;
  const std::shared_ptr<FillEngine> engine_;
};

}  // namespace

StatusOr<std::unique_ptr<Filler>> Filler::Create(const Options& options, SpaceCallback need_space) {
  if (options.patience.count() < 0 || options.persist_interval.count() <= 0 ||
      options.in_flight_bytes == 0 || options.request_bytes == 0 || options.requests < 1) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "a filler needs requests, memory and an interval above 0");
  }
  return std::unique_ptr<Filler>(std::make_unique<EngineFiller>(options, std::move(need_space)));
}

}  // namespace strata
