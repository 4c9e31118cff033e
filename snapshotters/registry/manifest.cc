// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/manifest.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "snapshotters/registry/reference.h"

namespace strata {
namespace {

Status Malformed(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, "manifest: " + std::string(why));
}

StatusOr<ManifestLayer> ReadLayer(const nlohmann::json& entry) {
  if (!entry.is_object()) {
    return Malformed("a layer is not an object");
  }
  const auto digest = entry.find("digest");
  const auto size = entry.find("size");
  if (digest == entry.end() || !digest->is_string() || size == entry.end() ||
      !size->is_number_unsigned()) {
    return Malformed("a layer without digest or size");
  }
  ManifestLayer layer = {.digest = digest->get<std::string>(), .size = size->get<uint64_t>()};
  STRATA_RETURN_IF_ERROR(ValidateDigest(layer.digest));
  const auto annotations = entry.find("annotations");
  if (annotations != entry.end() && annotations->is_object()) {
    for (const auto& [key, value] : annotations->items()) {
      if (value.is_string()) {
        layer.annotations[key] = value.get<std::string>();
      }
    }
  }
  return layer;
}

}  // namespace

StatusOr<std::vector<ManifestLayer>> ParseManifestLayers(std::string_view json) {
  const nlohmann::json root = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) {
    return Malformed("not a JSON object");
  }
  const auto layers = root.find("layers");
  if (layers == root.end() || !layers->is_array()) {
    return Malformed("no layers in it");
  }
  std::vector<ManifestLayer> result;
  for (const nlohmann::json& entry : *layers) {
    auto layer = ReadLayer(entry);
    if (!layer.ok()) {
      return MakeStatus(StatusCode::kDataLoss, StatusMessage(layer.status()));
    }
    result.push_back(*std::move(layer));
  }
  return result;
}

}  // namespace strata
