// SPDX-License-Identifier: Apache-2.0
//
// LayerResolver: from a layer as a client names it to what its image is made from: footer, TOC and
// where the bytes are. Safe from any thread.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/image_manifests.h"
#include "snapshotters/lazy/layer_image.h"
#include "snapshotters/lazy/task_queue.h"
#include "snapshotters/lazy/toc_decoder.h"
#include "snapshotters/lazy/toc_fetch.h"
#include "snapshotters/lazy/toc_pin.h"
#include "snapshotters/registry/blob_client.h"

namespace strata {

// One layer as a client names it.
struct LayerRequest {
  std::string reference;
  std::string digest;
  uint64_t blob_bytes = 0;  // 0: unknown
  std::vector<std::string> urls;
  // Annotations of the layer's descriptor (toc_pin.h).
  std::map<std::string, std::string> annotations;
  // Of the image, where the client names it: asked for the annotations when those that came along
  // pin nothing, and the layer is one that could be lazy.
  std::string manifest_digest;
  std::optional<uint64_t> prefetch_bytes;  // a label's; the landmark goes first
  bool skip_verify = false;                // honoured where the configuration allows it
};

// A request, understood.
struct LayerQuestion {
  LayerRequest request;
  Reference reference;
  TocPin pin;
  std::optional<LayerFormat> zstd_format;  // by the annotations
  VerifyPolicy policy;                     // for this request
  // Nobody waits yet, and the manifest's pin comes with who will (containerd names an image's other
  // layers by digest alone). The layer is made so that every chunk is held to its TOC; the pin says
  // later whether the TOC is the right one.
  bool ahead = false;

  // Whether the TOC has to hold to a pin of the manifest.
  [[nodiscard]] bool pinned(LayerFormat format) const {
    return !policy.disabled && IsPinned(format, pin);
  }
  // Questions with the same key have the same answer.
  [[nodiscard]] std::string Key() const;
};

// InvalidArgument: reference, digest or one of our annotations cannot be read.
StatusOr<LayerQuestion> ParseLayerRequest(const LayerRequest& request, const VerifyPolicy& policy,
                                          bool allow_skip_verify);

// Where a layer's bytes come from. InvalidArgument: the reference.
StatusOr<BlobSource> BlobSourceOf(const LayerSource& source);

struct ResolveOptions {
  bool user_xattr = false;
  TocLimits limits;
};

// What a layer's image is made from.
struct ResolvedLayer {
  LayerPlan plan;
  std::string toc_json;
};

class LayerResolver {
 public:
  struct Fetched {
    FetchedToc toc;
    LayerQuestion question;  // with the pin that was looked up, if it was
  };
  using Callback = std::function<void(StatusOr<Fetched>)>;

  // `blobs` must outlive this; `tasks` is stopped before this goes.
  LayerResolver(BlobClient& blobs, const ResolveOptions& options, std::shared_ptr<TaskQueue> tasks)
      : blobs_(blobs), options_(options), tasks_(std::move(tasks)), manifests_(blobs) {}

  // What has to come from the registry: at most two requests, with an external TOC one more for its
  // blob and, for each image, one for the TOC image's manifest; a layer whose pin has to be looked
  // up costs one for the image's manifest and those of a pinned one. The callback comes on a thread
  // of `tasks`, or never once they are stopped.
  void Fetch(const LayerQuestion& question, Deadline deadline, Callback callback);

  // What the CPU has to do with it. FailedPrecondition (no pin), DataLoss.
  [[nodiscard]] StatusOr<ResolvedLayer> Decode(const Fetched& fetched) const;

 private:
  // One layer on its way; shared by the callbacks.
  struct Fetching {
    LayerQuestion question;
    Deadline deadline;
    Callback callback;
    FetchedToc fetched;

    // Once: what was fetched is as large as the layer has files, and goes with it.
    void Succeed() { callback(Fetched{std::move(fetched), question}); }
  };

  void FetchTocOf(const std::shared_ptr<Fetching>& layer);
  void FindPin(const std::shared_ptr<Fetching>& layer, const Status& unpinned);
  void FindExternal(const std::shared_ptr<Fetching>& layer);
  void FetchExternal(const std::shared_ptr<Fetching>& layer, const ManifestLayer& toc);

  BlobClient& blobs_;
  const ResolveOptions options_;
  const std::shared_ptr<TaskQueue> tasks_;
  ImageManifests manifests_;
};

}  // namespace strata
