// SPDX-License-Identifier: Apache-2.0
//
// UnpackLayers: an image's layers onto a snapshotter, each as a committed snapshot by its chain id.
// Safe from any thread, in several processes at once; it blocks its thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client/image/content_store.h"
#include "client/image/image_config.h"
#include "client/image/image_manifest.h"
#include "client/image/layer_fetches.h"
#include "client/worker_snapshots.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

struct UnpackRequest {
  const ImageManifest& manifest;
  const ImageConfig& config;  // as many diff ids as there are layers
  std::string name;           // for descriptions
  int parallel_layers = 3;
  // "host/repository:tag@digest" by which a snapshotter can have the layers itself; "": not asked.
  std::string lazy_reference;
  std::string manifest_digest;
};

// The snapshot of the top layer, "" for an image without layers. Layers that are there are left
// alone, and nothing of them is fetched. On failure what was committed stays, all else is removed.
// DataLoss: a digest or a diff id is not what the image says.
StatusOr<std::string> UnpackLayers(CallContext& call, const FetchContext& context,
                                   WorkerSnapshots& snapshots, const UnpackRequest& request);

// Chain ids of all layers, the lowest first.
std::vector<std::string> ChainIds(const std::vector<std::string>& diff_ids);

}  // namespace strata
