// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/toc_images.h"

#include <chrono>
#include <utility>

namespace strata {
namespace {

using std::chrono::steady_clock;

constexpr std::string_view kTagSuffix = "-esgztoc";
constexpr const char* kLayerAnnotation = "containerd.io/snapshot/stargz/layer.digest";
constexpr uint64_t kLargestManifest = uint64_t{4} << 20;  // as registries have it
constexpr std::chrono::minutes kKept{5};
constexpr size_t kMostKept = 256;

}  // namespace

Reference TocImages::TocReference(const Reference& image) {
  return {.host = image.host,
          .repository = image.repository,
          .tag = image.tag + std::string(kTagSuffix)};
}

StatusOr<TocImages::Layers> TocImages::ReadLayers(const StatusOr<BlobTail>& manifest) {
  STRATA_RETURN_IF_ERROR(manifest.status());
  if (manifest->blob_size != manifest->bytes.size()) {
    return MakeStatus(StatusCode::kDataLoss,
                      "manifest: " + std::to_string(manifest->blob_size) + " bytes are too many");
  }
  STRATA_ASSIGN_OR_RETURN(std::vector<ManifestLayer> all, ParseManifestLayers(manifest->bytes));
  Layers layers;
  for (ManifestLayer& layer : all) {
    const auto described = layer.annotations.find(kLayerAnnotation);
    if (described != layer.annotations.end()) {
      const std::string digest = described->second;
      layers.insert_or_assign(digest, std::move(layer));
    }
  }
  return layers;
}

StatusOr<ManifestLayer> TocImages::Pick(const Layers& layers, const std::string& digest) {
  const auto found = layers.find(digest);
  if (found == layers.end()) {
    return MakeStatus(StatusCode::kNotFound, "the TOC image has no TOC of the layer");
  }
  return found->second;
}

void TocImages::State::Settle(const std::string& key, const StatusOr<Layers>& layers) {
  std::vector<Waiter> waiters;
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
  for (const Waiter& waiter : waiters) {
    if (layers.ok()) {
      waiter.callback(Pick(*layers, waiter.digest));
    } else {
      waiter.callback(Annotate(layers.status(), "ask for the TOC image"));
    }
  }
}

void TocImages::Find(const Reference& image, const std::string& digest, Deadline deadline,
                     Callback callback) {
  if (image.tag.empty()) {
    callback(MakeStatus(StatusCode::kFailedPrecondition,
                        "the TOC is in another image, which the reference names only by a tag"));
    return;
  }
  const Reference toc_image = TocReference(image);
  const std::string key = ShowReference(toc_image);
  StatusOr<ManifestLayer> kept = MakeStatus(StatusCode::kUnavailable, "");
  bool is_kept = false;
  {
    const MutexLock lock(state_->mutex);
    if (state_->entries.size() >= kMostKept) {
      std::erase_if(state_->entries, [](const auto& item) { return !item.second.asking; });
    }
    Entry& entry = state_->entries[key];
    if (!entry.asking && entry.expires > steady_clock::now()) {
      kept = Pick(entry.layers, digest);
      is_kept = true;
    } else {
      entry.waiters.push_back({digest, std::exchange(callback, nullptr)});
      if (std::exchange(entry.asking, true)) {
        return;
      }
    }
  }
  if (is_kept) {
    callback(std::move(kept));
    return;
  }
  blobs_.Open({.reference = toc_image, .manifest = toc_image.tag})
      ->FetchTail(kLargestManifest, deadline,
                  [state = state_, key](const StatusOr<BlobTail>& manifest) {
                    state->Settle(key, ReadLayers(manifest));
                  });
}

}  // namespace strata
