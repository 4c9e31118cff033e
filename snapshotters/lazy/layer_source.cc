// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_source.h"

#include <array>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "snapshotters/lazy/crc32c.h"
#include "snapshotters/lazy/layer_versions.h"

namespace strata {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kVersion = kLayerSourceVersion;
constexpr const char* kChecksumField = "crc32c";

constexpr std::array<std::pair<std::string_view, LayerFormat>, 5> kFormats = {{
    {"estargz", LayerFormat::kEstargz},
    {"stargz", LayerFormat::kLegacyStargz},
    {"estargz-external-toc", LayerFormat::kExternalToc},
    {"zstd:chunked", LayerFormat::kZstdChunked},
    {"zstd:chunked-containers", LayerFormat::kZstdChunkedContainers},
}};

std::string_view NameOf(LayerFormat format) {
  for (const auto& [name, known] : kFormats) {
    if (known == format) {
      return name;
    }
  }
  return "";
}

Status Wrong(std::string_view field, std::string_view expected) {
  return MakeStatus(StatusCode::kDataLoss, "read layer source: field '" + std::string(field) +
                                               "': expected " + std::string(expected));
}

// What has no UTF-8 is replaced: JSON can hold nothing else.
std::string Dump(const Json& json, int indent) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

std::string ChecksumOf(const Json& json) {
  const std::string text = Dump(json, /*indent=*/-1);
  const uint32_t sum = Crc32c({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  std::array<char, 9> digits{};
  (void)std::snprintf(digits.data(), digits.size(), "%08x", sum);
  return digits.data();
}

// Takes fields out of an object; the first failure sticks.
class FieldReader {
 public:
  explicit FieldReader(Json& object) : object_(object) {}

  [[nodiscard]] const Status& status() const { return status_; }

  void Text(const char* name, std::string& value) {
    const Json field = Take(name);
    if (field.is_string()) {
      value = field.get_ref<const std::string&>();
    } else {
      Fail(name, "a text");
    }
  }

  void Number(const char* name, uint64_t& value) {
    const Json field = Take(name);
    if (field.is_number_unsigned()) {
      value = field.get<uint64_t>();
    } else {
      Fail(name, "a number that is not negative");
    }
  }

  void Flag(const char* name, bool& value) {
    const Json field = Take(name);
    if (field.is_boolean()) {
      value = field.get<bool>();
    } else {
      Fail(name, "true or false");
    }
  }

  void Texts(const char* name, std::vector<std::string>& values) {
    const Json field = Take(name);
    if (!field.is_array()) {
      Fail(name, "a list of texts");
      return;
    }
    for (const Json& item : field) {
      if (!item.is_string()) {
        Fail(name, "a list of texts");
        return;
      }
      values.push_back(item.get_ref<const std::string&>());
    }
  }

  void Format(const char* name, LayerFormat& format) {
    std::string text;
    Text(name, text);
    for (const auto& [known, value] : kFormats) {
      if (known == text) {
        format = value;
        return;
      }
    }
    Fail(name, "a format that is known");
  }

  void ExpectNoOther() {
    if (status_.ok() && !object_.empty()) {
      Fail(object_.begin().key(), "no such field");
    }
  }

 private:
  Json Take(const char* name) {
    const auto found = object_.find(name);
    if (found == object_.end()) {
      return {};
    }
    Json value = std::move(*found);
    object_.erase(found);
    return value;
  }

  void Fail(std::string_view name, std::string_view expected) {
    if (status_.ok()) {
      status_ = Wrong(name, expected);
    }
  }

  Json& object_;
  Status status_;
};

Status CheckEnvelope(Json& root) {
  if (!root.is_object()) {
    return MakeStatus(StatusCode::kDataLoss, "read layer source: expected a JSON object");
  }
  // Before the checksum, which a newer version may make differently.
  FieldReader reader(root);
  uint64_t version = 0;
  reader.Number("version", version);
  STRATA_RETURN_IF_ERROR(reader.status());
  if (version != kVersion) {
    return MakeStatus(StatusCode::kDataLoss,
                      "read layer source: version " + std::to_string(version) +
                          " is not known, expected " + std::to_string(kVersion));
  }
  std::string checksum;
  reader.Text(kChecksumField, checksum);
  STRATA_RETURN_IF_ERROR(reader.status());
  return checksum == ChecksumOf(root) ? OkStatus()
                                      : Wrong(kChecksumField, "the checksum of all other fields");
}

}  // namespace

std::string ShowLayerSource(const LayerSource& source) {
  Json json = {
      {"reference", source.reference},
      {"digest", source.digest},
      {"blob_bytes", source.blob_bytes},
      {"urls", source.urls},
      {"format", std::string(NameOf(source.format))},
      {"toc_digest", source.toc_digest},
      {"toc_compressed_digest", source.toc_compressed_digest},
      {"user_xattr", source.user_xattr},
      {"verified", source.verified},
      {"prefetch_end", source.prefetch_end},
      {"no_prefetch", source.no_prefetch},
      {"inodes", source.inodes},
  };
  // Of what a reader will see, which is not what `source` has where that is no UTF-8.
  json = Json::parse(Dump(json, /*indent=*/-1), nullptr, /*allow_exceptions=*/false);
  json[kChecksumField] = ChecksumOf(json);
  json["version"] = kVersion;
  return Dump(json, /*indent=*/2) + "\n";
}

StatusOr<LayerSource> ParseLayerSource(std::string_view json) {
  Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  STRATA_RETURN_IF_ERROR(CheckEnvelope(root));
  LayerSource source;
  FieldReader reader(root);
  reader.Text("reference", source.reference);
  reader.Text("digest", source.digest);
  reader.Number("blob_bytes", source.blob_bytes);
  reader.Texts("urls", source.urls);
  reader.Format("format", source.format);
  reader.Text("toc_digest", source.toc_digest);
  reader.Text("toc_compressed_digest", source.toc_compressed_digest);
  reader.Flag("user_xattr", source.user_xattr);
  reader.Flag("verified", source.verified);
  reader.Number("prefetch_end", source.prefetch_end);
  reader.Flag("no_prefetch", source.no_prefetch);
  reader.Number("inodes", source.inodes);
  reader.ExpectNoOther();
  STRATA_RETURN_IF_ERROR(reader.status());
  return source;
}

std::optional<uint64_t> LayerSourceVersionOf(std::string_view json) {
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  const auto version = root.is_object() ? root.find("version") : root.end();
  return root.is_object() && version != root.end() && version->is_number_unsigned()
             ? std::optional(version->get<uint64_t>())
             : std::nullopt;
}

}  // namespace strata
