// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/stargz/source_labels.h"

#include <absl/strings/numbers.h>

#include <algorithm>
#include <map>
#include <utility>

#include "snapshotters/registry/reference.h"

namespace strata {
namespace {

// Keys of one family of labels that name an image, a layer of it, and the layers from that one up.
struct Family {
  std::string reference;
  std::string digest;
  std::string layers;
};

constexpr std::string_view kCri = "containerd.io/snapshot/cri.";
constexpr std::string_view kStargz = "containerd.io/snapshot/remote/stargz.";
constexpr std::string_view kManifestDigest = "containerd.io/snapshot/cri.manifest-digest";
constexpr std::string_view kStargzReference = "containerd.io/snapshot/remote/stargz.reference";
constexpr std::string_view kPrefetch = "containerd.io/snapshot/remote/stargz.prefetch";
constexpr std::string_view kSkipVerify = "containerd.io/snapshot/remote/stargz.skipverify";
constexpr std::string_view kUrls = "containerd.io/snapshot/remote/urls";
// A list has at most 4,096 bytes at containerd; more layers than this no label can name.
constexpr size_t kMostLayers = 512;

Family CriFamily() {
  const std::string prefix(kCri);
  return {.reference = prefix + "image-ref",
          .digest = prefix + "layer-digest",
          .layers = prefix + "image-layers"};
}

// `suffix`: "" or "." and the id of one of BuildKit's sources.
Family StargzFamily(std::string_view suffix) {
  const std::string prefix(kStargz);
  const std::string end(suffix);
  return {.reference = prefix + "reference" + end,
          .digest = prefix + "digest" + end,
          .layers = prefix + "layers" + end};
}

// In the order in which they are asked.
std::vector<Family> Families(const Labels& labels) {
  std::vector<Family> families = {CriFamily(), StargzFamily("")};
  const std::string with_suffix = std::string(kStargzReference) + ".";
  for (auto label = labels.lower_bound(with_suffix);
       label != labels.end() && label->first.starts_with(with_suffix); ++label) {
    families.push_back(
        StargzFamily(std::string_view(label->first).substr(kStargzReference.size())));
  }
  return families;
}

std::string_view Find(const Labels& labels, std::string_view key) {
  const auto found = labels.find(key);
  return found == labels.end() ? std::string_view() : std::string_view(found->second);
}

std::vector<std::string> SplitList(std::string_view list) {
  std::vector<std::string> items;
  while (!list.empty() && items.size() < kMostLayers) {
    const size_t comma = std::min(list.find(','), list.size());
    if (comma > 0) {
      items.emplace_back(list.substr(0, comma));
    }
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return items;
}

// What the labels say of the layer itself, in the words of its descriptor.
std::map<std::string, std::string> AnnotationsOf(const Labels& labels) {
  std::map<std::string, std::string> annotations;
  for (const auto& [key, value] : labels) {
    if (!key.starts_with(kCri) && !key.starts_with(kStargz) && !key.starts_with(kUrls) &&
        key != kTargetLabel && key != kRemoteLabel) {
      annotations.emplace(key, value);
    }
  }
  return annotations;
}

// What holds for all layers of the image.
LayerRequest Common(const Labels& labels) {
  LayerRequest request;
  uint64_t prefetch = 0;
  if (absl::SimpleAtoi(std::string(Find(labels, kPrefetch)), &prefetch)) {
    request.prefetch_bytes = prefetch;
  }
  request.skip_verify = labels.find(kSkipVerify) != labels.end();
  return request;
}

Status CheckPlace(const Family& family, std::string_view reference, std::string_view digest) {
  STRATA_RETURN_IF_ERROR(
      Annotate(ParseReference(reference).status(), "label '" + family.reference + "'"));
  return Annotate(ValidateDigest(digest), "label '" + family.digest + "'");
}

std::vector<LayerRequest> NeighboursOf(const Labels& labels, const Family& family,
                                       const LayerRequest& layer) {
  std::vector<LayerRequest> neighbours;
  const std::vector<std::string> digests = SplitList(Find(labels, family.layers));
  for (size_t i = 0; i < digests.size(); ++i) {
    if (digests[i] == layer.digest || !ValidateDigest(digests[i]).ok()) {
      continue;
    }
    LayerRequest neighbour = Common(labels);
    neighbour.reference = layer.reference;
    neighbour.digest = digests[i];
    neighbour.urls = SplitList(Find(labels, std::string(kUrls) + "." + std::to_string(i)));
    neighbours.push_back(std::move(neighbour));
  }
  return neighbours;
}

bool SamePlace(const LayerRequest& a, const LayerRequest& b) {
  return a.reference == b.reference && a.digest == b.digest;
}

}  // namespace

std::optional<SourceLabels> ParseSourceLabels(const Labels& labels) {
  const std::string_view target = Find(labels, kTargetLabel);
  if (target.empty()) {
    return std::nullopt;
  }
  SourceLabels sources;
  sources.target = target;
  for (const Family& family : Families(labels)) {
    const std::string_view reference = Find(labels, family.reference);
    const std::string_view digest = Find(labels, family.digest);
    if (reference.empty() && digest.empty()) {
      continue;
    }
    if (const Status status = CheckPlace(family, reference, digest); !status.ok()) {
      sources.problem =
          sources.problem.empty() ? std::string(StatusMessage(status)) : std::move(sources.problem);
      continue;
    }
    LayerRequest layer = Common(labels);
    layer.reference = reference;
    layer.digest = digest;
    layer.urls = SplitList(Find(labels, kUrls));
    layer.annotations = AnnotationsOf(labels);
    if (const std::string_view manifest = Find(labels, kManifestDigest);
        ValidateDigest(manifest).ok()) {
      layer.manifest_digest = manifest;
    }
    if (std::any_of(sources.places.begin(), sources.places.end(),
                    [&layer](const LayerRequest& known) { return SamePlace(known, layer); })) {
      continue;
    }
    if (sources.places.empty()) {
      sources.neighbours = NeighboursOf(labels, family, layer);
    }
    sources.places.push_back(std::move(layer));
  }
  if (sources.places.empty() && sources.problem.empty()) {
    sources.problem = "no label names image and layer";
  }
  return sources;
}

}  // namespace strata
