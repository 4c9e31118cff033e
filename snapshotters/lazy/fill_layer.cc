// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fill_layer.h"

namespace strata {

LayerFill::LayerFill(std::shared_ptr<LayerImage> image, std::shared_ptr<Blob> blob,
                     Filler::CompleteCallback on_complete, uint64_t read_ahead_bytes)
    : read_ahead(read_ahead_bytes),
      image_(std::move(image)),
      blob_(std::move(blob)),
      on_complete_(std::move(on_complete)),
      completed_(image_->extents().complete()) {}

FillLayer::State LayerFill::state() const {
  State state;
  state.fetched_bytes = fetched_bytes_.load(std::memory_order_relaxed);
  state.present_chunks = image_->extents().present();
  state.disk_full = disk_full();
  const MutexLock lock(mutex_);
  state.failures = failures_;
  state.last_error = last_error_;
  return state;
}

void LayerFill::NoteError(const Status& status, bool given_up) {
  const MutexLock lock(mutex_);
  failures_ += given_up ? 1 : 0;
  last_error_ = status;
}

bool LayerFill::TakeCompletion() {
  return image_->extents().complete() && !completed_.exchange(true);
}

Status LayerFill::Describe(const Status& status, uint32_t span) const {
  const LayerSource& source = image_->source();
  const auto chunks = image_->chunks().ChunksOf(span);
  std::string context = "layer '" + source.digest + "' of '" + source.reference + "'";
  if (!chunks.empty()) {
    context += ", chunk at " + std::to_string(image_->chunks().chunk(chunks.front()).image_offset);
  }
  return Annotate(status, context);
}

}  // namespace strata
