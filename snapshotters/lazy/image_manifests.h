// SPDX-License-Identifier: Apache-2.0
//
// ImageManifests: the layers that an image's manifest names, asked for once for each image and kept
// for some minutes. Safe from any thread; callbacks come on the I/O thread of HttpClient, or at
// once.
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

class ImageManifests {
 public:
  using Layers = std::shared_ptr<const std::vector<ManifestLayer>>;
  using Callback = std::function<void(StatusOr<Layers>)>;

  // `blobs` must outlive this.
  explicit ImageManifests(BlobClient& blobs) : blobs_(blobs) {}

  // `manifest`: a tag, or a digest, which the bytes are then held to. DataLoss: they do not hold,
  // or it is no manifest of an image. Else as Blob has it.
  void Find(const Reference& image, const std::string& manifest, Deadline deadline,
            Callback callback);

 private:
  // What is known about one manifest.
  struct Entry {
    bool asking = false;
    Deadline expires = {};
    Layers layers;
    std::vector<Callback> waiters;
  };
  // Outlives this while a request is under way.
  struct State {
    Mutex mutex;
    std::map<std::string, Entry> entries ABSL_GUARDED_BY(mutex);

    void Settle(const std::string& key, const StatusOr<Layers>& layers);
  };

  static StatusOr<Layers> Read(const std::string& manifest, const StatusOr<BlobTail>& answer);

  BlobClient& blobs_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace strata
