// SPDX-License-Identifier: Apache-2.0
#include "client/image/lazy_labels.h"

#include <string_view>

namespace strata {
namespace {

constexpr size_t kMostLabelBytes =
    4096;  // of key and value together (containerd's labels.Validate)
constexpr const char* kTarget = "containerd.io/snapshot.ref";
constexpr const char* kReference = "containerd.io/snapshot/remote/stargz.reference";
constexpr const char* kDigest = "containerd.io/snapshot/remote/stargz.digest";
constexpr const char* kLayers = "containerd.io/snapshot/remote/stargz.layers";
constexpr const char* kUrls = "containerd.io/snapshot/remote/urls";
constexpr const char* kManifestDigest = "containerd.io/snapshot/cri.manifest-digest";
// Where a layer's annotations tell of its table of contents: eStargz and both of zstd:chunked.
constexpr std::string_view kPassed[] = {"containerd.io/snapshot/", "io.containers.",
                                        "io.github.containers."};

void Put(Labels& labels, const std::string& key, const std::string& value) {
  if (!value.empty() && key.size() + value.size() <= kMostLabelBytes) {
    labels[key] = value;
  }
}

}  // namespace

Labels LazyLabels(std::span<const ImageLayer> layers, const std::string& reference,
                  const std::string& manifest_digest, const std::string& target) {
  Labels labels;
  const ImageLayer& layer = layers.front();
  for (const auto& [key, value] : layer.annotations) {
    for (const std::string_view prefix : kPassed) {
      if (key.starts_with(prefix)) {
        Put(labels, key, value);
      }
    }
  }
  Put(labels, kTarget, target);
  Put(labels, kReference, reference);
  Put(labels, kDigest, layer.blob.digest);
  Put(labels, kManifestDigest, manifest_digest);
  const auto join = [](std::string_view key, const auto& items, auto text) {
    std::string list;
    for (const auto& item : items) {
      const std::string& one = text(item);
      if (key.size() + list.size() + 1 + one.size() > kMostLabelBytes) {
        break;
      }
      list += (list.empty() ? "" : ",") + one;
    }
    return list;
  };
  Put(labels, kLayers,
      join(kLayers, layers, [](const ImageLayer& each) { return each.blob.digest; }));
  Put(labels, kUrls, join(kUrls, layer.urls, [](const std::string& url) { return url; }));
  return labels;
}

}  // namespace strata
