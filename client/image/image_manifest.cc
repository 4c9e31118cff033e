// SPDX-License-Identifier: Apache-2.0
#include "client/image/image_manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "snapshotters/registry/reference.h"
#include "snapshotters/registry/url.h"

namespace strata {
namespace {

using Json = nlohmann::json;

Status Malformed(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, "manifest: " + std::string(why));
}

std::string Text(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

StatusOr<Descriptor> ReadDescriptor(const Json& entry, std::string_view what) {
  if (!entry.is_object()) {
    return Malformed(std::string(what) + " is not an object");
  }
  const auto size = entry.find("size");
  const Descriptor found{.media_type = Text(entry, "mediaType"),
                         .digest = Text(entry, "digest"),
                         .size = size != entry.end() && size->is_number_unsigned()
                                     ? size->get<uint64_t>()
                                     : uint64_t{0}};
  const Status valid = ValidateDigest(found.digest);
  if (!valid.ok()) {
    return Malformed(std::string(what) + ": " + std::string(StatusMessage(valid)));
  }
  if (size == entry.end() || !size->is_number_unsigned()) {
    return Malformed(std::string(what) + " has no size");
  }
  return found;
}

StatusOr<ImageLayer> ReadLayer(const Json& entry) {
  ImageLayer layer;
  STRATA_ASSIGN_OR_RETURN(layer.blob, ReadDescriptor(entry, "a layer"));
  const auto annotations = entry.find("annotations");
  if (annotations != entry.end() && annotations->is_object()) {
    for (const auto& [key, value] : annotations->items()) {
      if (value.is_string()) {
        layer.annotations[key] = value.get<std::string>();
      }
    }
  }
  const auto urls = entry.find("urls");
  if (urls != entry.end() && urls->is_array()) {
    for (const Json& url : *urls) {
      if (url.is_string()) {
        layer.urls.push_back(url.get<std::string>());
      }
    }
  }
  return layer;
}

// How well `offered` suits: 0 is the very same, nothing is not at all.
std::optional<int> Distance(const Platform& offered, const Platform& wanted) {
  if (offered.os != wanted.os || offered.architecture != wanted.architecture) {
    return std::nullopt;
  }
  if (offered.variant == wanted.variant) {
    return 0;
  }
  const auto level = [](const std::string& variant) {
    return variant.size() == 2 && variant[0] == 'v' && variant[1] >= '1' && variant[1] <= '9'
               ? variant[1] - '0'
               : 0;
  };
  // What runs on v6 runs on v7; so it is with arm64 and amd64. Which variant "" stands for has been
  // settled by NormalizePlatform.
  const int lowest = wanted.architecture == "arm64" ? 8 : 1;
  const int have = wanted.variant.empty() ? lowest : level(wanted.variant);
  const int need = offered.variant.empty() ? lowest : level(offered.variant);
  if (have == 0 || need == 0 || need > have) {
    return std::nullopt;
  }
  return have - need;
}

}  // namespace

bool IsImageIndex(std::string_view json) {
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  return root.is_object() && root.contains("manifests") && !root.contains("layers");
}

StatusOr<ImageManifest> ParseImageManifest(std::string_view json) {
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) {
    return Malformed("not a JSON object");
  }
  if (root.contains("fsLayers")) {
    return MakeStatus(StatusCode::kUnimplemented,
                      "manifest: Docker's schema 1 is not supported; push the image again");
  }
  const auto layers = root.find("layers");
  if (layers == root.end() || !layers->is_array() || !root.contains("config")) {
    return Malformed("expected a config and layers");
  }
  ImageManifest manifest{.media_type = Text(root, "mediaType")};
  if (manifest.media_type.empty()) {
    manifest.media_type = kOciManifestType;
  }
  STRATA_ASSIGN_OR_RETURN(manifest.config, ReadDescriptor(root["config"], "the config"));
  for (const Json& entry : *layers) {
    STRATA_ASSIGN_OR_RETURN(ImageLayer layer, ReadLayer(entry));
    manifest.layers.push_back(std::move(layer));
  }
  return manifest;
}

StatusOr<std::vector<IndexEntry>> ParseImageIndex(std::string_view json) {
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object() || !root.contains("manifests") || !root["manifests"].is_array()) {
    return Malformed("it is no index");
  }
  std::vector<IndexEntry> entries;
  for (const Json& item : root["manifests"]) {
    IndexEntry entry;
    STRATA_ASSIGN_OR_RETURN(entry.manifest, ReadDescriptor(item, "an entry"));
    const auto platform = item.find("platform");
    if (platform != item.end() && platform->is_object()) {
      entry.has_platform = true;
      entry.platform = {.os = Text(*platform, "os"),
                        .architecture = Text(*platform, "architecture"),
                        .variant = Text(*platform, "variant")};
    }
    const auto annotations = item.find("annotations");
    if (annotations != item.end() && annotations->is_object()) {
      entry.name = Text(*annotations, "org.opencontainers.image.ref.name");
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

Platform NormalizePlatform(Platform platform) {
  platform.os = LowerCase(platform.os);
  platform.architecture = LowerCase(platform.architecture);
  platform.variant = LowerCase(platform.variant);
  std::string& architecture = platform.architecture;
  if (architecture == "x86_64" || architecture == "x86-64") {
    architecture = "amd64";
  } else if (architecture == "aarch64") {
    architecture = "arm64";
  } else if (architecture == "armhf") {
    architecture = "arm";
    platform.variant = "v7";
  } else if (architecture == "armel") {
    architecture = "arm";
    platform.variant = "v6";
  }
  std::string& variant = platform.variant;
  if (!variant.empty() && variant[0] >= '1' && variant[0] <= '9') {
    variant.insert(0, "v");
  }
  if ((architecture == "amd64" && variant == "v1") ||
      (architecture == "arm64" && variant == "v8")) {
    variant.clear();
  } else if (architecture == "arm" && variant.empty()) {
    variant = "v7";
  }
  return platform;
}

std::string ShowPlatform(const Platform& platform) {
  std::string text = platform.os + "/" + platform.architecture;
  return platform.variant.empty() ? text : text + "/" + platform.variant;
}

StatusOr<IndexEntry> ChoosePlatform(const std::vector<IndexEntry>& entries,
                                    const Platform& platform) {
  const Platform wanted = NormalizePlatform(platform);
  const IndexEntry* best = nullptr;
  const IndexEntry* any = nullptr;
  int best_distance = 0;
  std::string offered;
  for (const IndexEntry& entry : entries) {
    if (!entry.has_platform) {
      any = any == nullptr ? &entry : any;
      continue;
    }
    offered += (offered.empty() ? "" : ", ") + ShowPlatform(entry.platform);
    const auto distance = Distance(NormalizePlatform(entry.platform), wanted);
    if (distance.has_value() && (best == nullptr || *distance < best_distance)) {
      best = &entry;
      best_distance = *distance;
    }
  }
  best = best == nullptr ? any : best;
  if (best == nullptr) {
    return MakeStatus(StatusCode::kNotFound,
                      "no manifest for platform " + ShowPlatform(wanted) +
                          "; there are: " + (offered.empty() ? std::string("none") : offered));
  }
  return *best;
}

}  // namespace strata
