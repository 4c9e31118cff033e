// SPDX-License-Identifier: Apache-2.0
//
// TocImages: where the TOCs of an image lie whose layers have none of their own (eStargz with
// external TOC): they are the layers of the image <repository>:<tag>-esgztoc, whose manifest is
// asked for once for each image. Safe from any thread; callbacks come on the I/O thread of
// HttpClient.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/registry/blob_client.h"
#include "snapshotters/registry/manifest.h"
#include "snapshotters/registry/reference.h"

namespace strata {

class TocImages {
 public:
  using Callback = std::function<void(StatusOr<ManifestLayer>)>;

  // `blobs` must outlive this.
  explicit TocImages(BlobClient& blobs) : blobs_(blobs) {}

  // The layer of the TOC image that holds the TOC of the layer `digest`. FailedPrecondition: the
  // reference has no tag. NotFound: no TOC image, or no such layer in it. DataLoss: its manifest.
  void Find(const Reference& image, const std::string& digest, Deadline deadline,
            Callback callback);

  static Reference TocReference(const Reference& image);

 private:
  using Layers = std::map<std::string, ManifestLayer>;  // by the digest of the layer described
  struct Waiter {
    std::string digest;
    Callback callback;
  };
  // What is known about one image.
  struct Entry {
    bool asking = false;
    Deadline expires = {};
    Layers layers;
    std::vector<Waiter> waiters;
  };
  // Outlives this while a request is under way.
  struct State {
    Mutex mutex;
    std::map<std::string, Entry> entries ABSL_GUARDED_BY(mutex);

    void Settle(const std::string& key, const StatusOr<Layers>& layers);
  };

  static StatusOr<Layers> ReadLayers(const StatusOr<BlobTail>& manifest);
  static StatusOr<ManifestLayer> Pick(const Layers& layers, const std::string& digest);

  BlobClient& blobs_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace strata
