// SPDX-License-Identifier: Apache-2.0
//
// LayerFetches: the blobs of one image on their way into the content store, some beside each other,
// in the order in which they will be wanted. Used by one thread; has threads of its own.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/image/content_store.h"
#include "client/image/image_manifest.h"
#include "client/image/image_origin.h"
#include "client/image/incoming_blob.h"
#include "client/image/pull.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

// Tells a PullProgress that may be none, one call at a time.
class ProgressTeller {
 public:
  explicit ProgressTeller(PullProgress* progress) : progress_(progress) {}
  void Tell(std::string_view blob, PullProgress::Step step, uint64_t done = 0, uint64_t total = 0);

 private:
  PullProgress* const progress_;
  Mutex mutex_;
};

struct FetchContext {
  ContentStore& content;
  ImageOrigin& origin;
  Deadline deadline;
  ProgressTeller& progress;
};

// Into the content store, going on where an earlier fetch has stopped; `blob` is told of it and of
// its end.
Status FetchBlobInto(const CallContext& call, const FetchContext& context, const ImageLayer& layer,
                     IncomingBlob& blob);

class LayerFetches {
 public:
  // `context` must outlive this.
  explicit LayerFetches(const FetchContext& context) : context_(context) {}
  // Ends what is under way: its readers get Cancelled.
  ~LayerFetches() { Cancel(); }
  LayerFetches(const LayerFetches&) = delete;
  LayerFetches& operator=(const LayerFetches&) = delete;

  // Once. A blob that two layers have is fetched once.
  void Start(const std::vector<ImageLayer>& layers, int parallel);
  void Cancel();
  // Of a layer that was given to Start.
  [[nodiscard]] IncomingBlob& Of(const ImageLayer& layer) { return *blobs_.at(layer.blob.digest); }

 private:
  void Work();

  const FetchContext& context_;
  CallContext stop_;
  std::map<std::string, std::unique_ptr<IncomingBlob>> blobs_;
  std::vector<ImageLayer> queue_;
  Mutex mutex_;
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::thread> threads_;
};

}  // namespace strata
