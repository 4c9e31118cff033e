// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/toc_images.h"

#include <utility>

namespace strata {
namespace {

constexpr std::string_view kTagSuffix = "-esgztoc";
constexpr const char* kLayerAnnotation = "containerd.io/snapshot/stargz/layer.digest";

StatusOr<ManifestLayer> Pick(const std::vector<ManifestLayer>& layers, const std::string& digest) {
  for (const ManifestLayer& layer : layers) {
    const auto described = layer.annotations.find(kLayerAnnotation);
    if (described != layer.annotations.end() && described->second == digest) {
      return layer;
    }
  }
  return MakeStatus(StatusCode::kNotFound, "the TOC image has no TOC of the layer");
}

}  // namespace

Reference TocImageOf(const Reference& image) {
  return {.host = image.host,
          .repository = image.repository,
          .tag = image.tag + std::string(kTagSuffix)};
}

void FindExternalToc(ImageManifests& manifests, const Reference& image, const std::string& digest,
                     Deadline deadline, std::function<void(StatusOr<ManifestLayer>)> callback) {
  if (image.tag.empty()) {
    callback(MakeStatus(StatusCode::kFailedPrecondition,
                        "the TOC is in another image, which the reference names only by a tag"));
    return;
  }
  const Reference toc_image = TocImageOf(image);
  manifests.Find(
      toc_image, toc_image.tag, deadline,
      [digest, callback = std::move(callback)](const StatusOr<ImageManifests::Layers>& layers) {
        if (layers.ok()) {
          callback(Pick(**layers, digest));
        } else {
          callback(Annotate(layers.status(), "ask for the TOC image"));
        }
      });
}

}  // namespace strata
