// SPDX-License-Identifier: Apache-2.0
#include "client/image/image_config.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "snapshotters/base/check.h"
#include "snapshotters/base/digest.h"
#include "snapshotters/registry/reference.h"

namespace strata {
namespace {

using Json = nlohmann::json;

Status Malformed(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, "image config: " + std::string(why));
}

// Absent and null are the same in all that Go has written.
const Json* Find(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

Status ReadText(const Json& object, const char* key, std::string& text) {
  const Json* found = Find(object, key);
  if (found == nullptr) {
    return OkStatus();
  }
  if (!found->is_string()) {
    return Malformed("'" + std::string(key) + "' is not a string");
  }
  text = found->get<std::string>();
  return OkStatus();
}

Status ReadTexts(const Json& object, const char* key, std::vector<std::string>& texts) {
  const Json* found = Find(object, key);
  if (found == nullptr) {
    return OkStatus();
  }
  if (!found->is_array()) {
    return Malformed("'" + std::string(key) + "' is not a list");
  }
  for (const Json& item : *found) {
    if (!item.is_string()) {
      return Malformed("'" + std::string(key) + "' has an item that is not a string");
    }
    texts.push_back(item.get<std::string>());
  }
  return OkStatus();
}

Status ReadProcess(const Json& process, ImageConfig& config) {
  STRATA_RETURN_IF_ERROR(ReadTexts(process, "Env", config.env));
  STRATA_RETURN_IF_ERROR(ReadTexts(process, "Entrypoint", config.entrypoint));
  STRATA_RETURN_IF_ERROR(ReadTexts(process, "Cmd", config.cmd));
  STRATA_RETURN_IF_ERROR(ReadText(process, "User", config.user));
  STRATA_RETURN_IF_ERROR(ReadText(process, "WorkingDir", config.working_dir));
  STRATA_RETURN_IF_ERROR(ReadText(process, "StopSignal", config.stop_signal));
  const Json* labels = Find(process, "Labels");
  if (labels == nullptr) {
    return OkStatus();
  }
  if (!labels->is_object()) {
    return Malformed("'Labels' is not an object");
  }
  for (const auto& [key, value] : labels->items()) {
    if (!value.is_string()) {
      return Malformed("a label is not a string");
    }
    config.labels[key] = value.get<std::string>();
  }
  return OkStatus();
}

}  // namespace

StatusOr<ImageConfig> ParseImageConfig(std::string_view json) {
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) {
    return Malformed("not a JSON object");
  }
  ImageConfig config;
  STRATA_RETURN_IF_ERROR(ReadText(root, "os", config.platform.os));
  STRATA_RETURN_IF_ERROR(ReadText(root, "architecture", config.platform.architecture));
  STRATA_RETURN_IF_ERROR(ReadText(root, "variant", config.platform.variant));
  const Json* rootfs = Find(root, "rootfs");
  if (rootfs == nullptr || !rootfs->is_object()) {
    return Malformed("no 'rootfs'");
  }
  STRATA_RETURN_IF_ERROR(ReadTexts(*rootfs, "diff_ids", config.diff_ids));
  for (const std::string& diff_id : config.diff_ids) {
    const Status valid = ValidateDigest(diff_id);
    if (!valid.ok()) {
      return Malformed("a diff id: " + std::string(StatusMessage(valid)));
    }
  }
  const Json* process = Find(root, "config");
  if (process != nullptr && !process->is_object()) {
    return Malformed("'config' is not an object");
  }
  if (process != nullptr) {
    STRATA_RETURN_IF_ERROR(ReadProcess(*process, config));
  }
  return config;
}

std::string ChainIdOf(const std::vector<std::string>& diff_ids) {
  STRATA_CHECK(!diff_ids.empty());
  std::string chain = diff_ids.front();
  for (size_t i = 1; i < diff_ids.size(); ++i) {
    chain = Sha256Text(chain.append(" ").append(diff_ids[i]));
  }
  return chain;
}

}  // namespace strata
