// SPDX-License-Identifier: Apache-2.0
#include "client/image/store_index.h"

#include <utility>

#include "snapshotters/registry/reference.h"

namespace strata {
namespace {

using Json = nlohmann::json;

constexpr const char* kNameKey = "org.opencontainers.image.ref.name";
constexpr const char* kIndexType = "application/vnd.oci.image.index.v1+json";

std::string NameOf(const Json& entry) {
  const auto annotations = entry.find("annotations");
  if (annotations == entry.end() || !annotations->is_object()) {
    return "";
  }
  const auto name = annotations->find(kNameKey);
  return name != annotations->end() && name->is_string() ? name->get<std::string>() : "";
}

}  // namespace

StoreIndex::StoreIndex()
    : root_({{"schemaVersion", 2}, {"mediaType", kIndexType}, {"manifests", Json::array()}}) {}

StatusOr<StoreIndex> StoreIndex::Parse(std::string_view text) {
  StoreIndex index;
  index.root_ = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto broken = [](std::string_view why) {
    return MakeStatus(StatusCode::kDataLoss, "index.json: " + std::string(why));
  };
  if (!index.root_.is_object() || !index.root_.contains("manifests") ||
      !index.root_["manifests"].is_array()) {
    return broken("it is no index of images");
  }
  for (const Json& entry : index.root_["manifests"]) {
    if (!entry.is_object() || !entry.contains("digest") || !entry["digest"].is_string() ||
        !ValidateDigest(entry["digest"].get<std::string>()).ok()) {
      return broken("an entry without a valid digest");
    }
  }
  return index;
}

void StoreIndex::Put(const ImageRecord& image) {
  (void)Remove(image.name);  // the one it replaces, if any
  root_["manifests"].push_back({{"mediaType", image.manifest.media_type},
                                {"digest", image.manifest.digest},
                                {"size", image.manifest.size},
                                {"annotations", {{kNameKey, image.name}}}});
}

bool StoreIndex::Remove(std::string_view name) {
  Json kept = Json::array();
  for (Json& entry : root_["manifests"]) {
    if (NameOf(entry) != name) {
      kept.push_back(std::move(entry));
    }
  }
  const bool found = kept.size() != root_["manifests"].size();
  root_["manifests"] = std::move(kept);
  return found;
}

std::vector<ImageRecord> StoreIndex::Images() const {
  std::vector<ImageRecord> images;
  for (const Json& entry : root_["manifests"]) {
    const std::string name = NameOf(entry);
    if (name.empty()) {
      continue;
    }
    ImageRecord image{.name = name, .manifest = {.digest = entry["digest"].get<std::string>()}};
    const auto type = entry.find("mediaType");
    const auto size = entry.find("size");
    if (type != entry.end() && type->is_string()) {
      image.manifest.media_type = type->get<std::string>();
    }
    if (size != entry.end() && size->is_number_unsigned()) {
      image.manifest.size = size->get<uint64_t>();
    }
    images.push_back(std::move(image));
  }
  return images;
}

std::vector<std::string> StoreIndex::Digests() const {
  std::vector<std::string> digests;
  for (const Json& entry : root_["manifests"]) {
    digests.push_back(entry["digest"].get<std::string>());
  }
  return digests;
}

std::string StoreIndex::Text() const {
  return root_.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace strata
