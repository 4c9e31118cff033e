// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/image_manifests.h"

#include <chrono>
#include <optional>
#include <utility>

#include "snapshotters/base/digest.h"
#include "snapshotters/lazy/toc_pin.h"

namespace strata {
namespace {

using std::chrono::steady_clock;

constexpr uint64_t kLargestManifest = uint64_t{4} << 20;  // as registries have it
constexpr std::chrono::minutes kKept{5};
constexpr size_t kMostKept = 256;

}  // namespace

StatusOr<ImageManifests::Layers> ImageManifests::Read(const std::string& manifest,
                                                      const StatusOr<BlobTail>& answer) {
  STRATA_RETURN_IF_ERROR(answer.status());
  if (answer->blob_size != answer->bytes.size()) {
    return MakeStatus(StatusCode::kDataLoss,
                      "manifest: " + std::to_string(answer->blob_size) + " bytes are too many");
  }
  // A tag names whatever the registry says. Of digests, sha256 is what we can compute.
  const std::optional<Sha256Digest> digest = ParseSha256(manifest);
  if (digest && Sha256(answer->bytes) != *digest) {
    return MakeStatus(StatusCode::kDataLoss, "manifest: its digest is not '" + manifest + "'");
  }
  if (!digest && ValidateDigest(manifest).ok()) {
    return MakeStatus(StatusCode::kDataLoss, "manifest '" + manifest + "': expected a sha256");
  }
  STRATA_ASSIGN_OR_RETURN(std::vector<ManifestLayer> layers, ParseManifestLayers(answer->bytes));
  return std::make_shared<const std::vector<ManifestLayer>>(std::move(layers));
}

void ImageManifests::State::Settle(const std::string& key, const StatusOr<Layers>& layers) {
  std::vector<Callback> waiters;
  {
    const MutexLock lock(mutex);
    Entry& entry = entries[key];
    waiters.swap(entry.waiters);
    entry.asking = false;
    if (layers.ok()) {
      entry.layers = *layers;
      entry.expires = steady_clock::now() + kKept;
    } else {
      entries.erase(key);
    }
  }
  for (const Callback& waiter : waiters) {
    waiter(layers);
  }
}

void ImageManifests::Find(const Reference& image, const std::string& manifest, Deadline deadline,
                          Callback callback) {
  const std::string key = image.host + "/" + image.repository + " " + manifest;
  Layers kept;
  {
    const MutexLock lock(state_->mutex);
    if (state_->entries.size() >= kMostKept) {
      std::erase_if(state_->entries, [](const auto& item) { return !item.second.asking; });
    }
    Entry& entry = state_->entries[key];
    if (!entry.asking && entry.expires > steady_clock::now()) {
      kept = entry.layers;
    } else {
      entry.waiters.push_back(std::exchange(callback, nullptr));
      if (std::exchange(entry.asking, true)) {
        return;
      }
    }
  }
  if (kept != nullptr) {
    callback(std::move(kept));
    return;
  }
  blobs_.Open({.reference = image, .manifest = manifest})
      ->FetchTail(kLargestManifest, deadline,
                  [state = state_, key, manifest](const StatusOr<BlobTail>& answer) {
                    state->Settle(key, Read(manifest, answer));
                  });
}

}  // namespace strata
