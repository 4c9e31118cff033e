// SPDX-License-Identifier: Apache-2.0
#include "client/network/cni_config.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

using nlohmann::json;

constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr size_t kDigestDigits = 12;
// What the protocol began with; files of that time do not name it.
constexpr std::string_view kFirstVersion = "0.1.0";
using Version = std::array<int, 3>;
constexpr Version kResultForDel = {0, 4, 0};

Status Expected(std::string_view what) {
  return MakeStatus(StatusCode::kInvalidArgument, "expected " + std::string(what));
}

std::optional<Version> ParseVersion(std::string_view text) {
  Version version{};
  const char* at = text.data();
  const char* const end = at + text.size();
  for (size_t i = 0; i < version.size(); ++i) {
    if (i > 0 && (at == end || *at++ != '.')) {
      return std::nullopt;
    }
    const auto [next, error] = std::from_chars(at, end, version[i]);
    if (error != std::errc() || version[i] < 0) {
      return std::nullopt;
    }
    at = next;
  }
  return at == end ? std::optional(version) : std::nullopt;
}

bool IsLetterOrDigit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// As libcni checks names of networks: host-local makes a folder of it.
bool IsName(std::string_view name) {
  return !name.empty() && IsLetterOrDigit(name[0]) && std::ranges::all_of(name, [](char c) {
    return IsLetterOrDigit(c) || c == '_' || c == '.' || c == '-';
  });
}

StatusOr<std::string> TextMember(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) {
    return std::string();
  }
  if (!found->is_string()) {
    return Expected(std::string("a string as \"") + key + "\"");
  }
  return found->get<std::string>();
}

// JSON from outside may hold what is no UTF-8; dump() would throw.
std::string Dump(const json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
}

json Parse(std::string_view text) {
  return json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
}

std::string DigestOf(std::string_view text) {
  const std::string digest = Sha256Text(text);
  return digest.substr(digest.find(':') + 1, kDigestDigits);
}

Status AddPlugin(json plugin, CniConfig& config) {
  if (!plugin.is_object()) {
    return Expected("each of \"plugins\" to be an object");
  }
  STRATA_ASSIGN_OR_RETURN(std::string type, TextMember(plugin, "type"));
  if (!IsName(type)) {
    return Expected("the name of a program as \"type\" of a plugin, not " + ShowName(type));
  }
  plugin["name"] = config.name;
  plugin["cniVersion"] = config.version;
  config.plugins.push_back({std::move(type), Dump(plugin)});
  return OkStatus();
}

}  // namespace

StatusOr<CniConfig> ParseCniConfig(std::string_view text, bool list) {
  json all = Parse(text);
  if (!all.is_object()) {
    return Expected("a JSON object");
  }
  CniConfig config;
  STRATA_ASSIGN_OR_RETURN(config.name, TextMember(all, "name"));
  if (!IsName(config.name)) {
    return Expected("\"name\" to be letters, digits, '_', '.' and '-', not " +
                    ShowName(config.name));
  }
  STRATA_ASSIGN_OR_RETURN(config.version, TextMember(all, "cniVersion"));
  if (config.version.empty()) {
    config.version = kFirstVersion;
  }
  const std::optional<Version> version = ParseVersion(config.version);
  if (!version.has_value()) {
    return Expected("\"cniVersion\" to be as \"1.0.0\", not " + ShowName(config.version));
  }
  config.keeps_result_for_del = *version >= kResultForDel;
  if (!list) {
    all = json{{"name", config.name}, {"cniVersion", config.version}, {"plugins", {all}}};
  }
  const auto plugins = all.find("plugins");
  if (plugins == all.end() || !plugins->is_array() || plugins->empty()) {
    return Expected("\"plugins\" to be a list of at least one");
  }
  for (const json& plugin : *plugins) {
    STRATA_RETURN_IF_ERROR(AddPlugin(plugin, config));
  }
  config.text = Dump(all);
  config.digest = DigestOf(config.text);
  return config;
}

StatusOr<CniConfig> ReadCniConfig(const std::string& path) {
  const StatusOr<UniqueFd> fd = OpenFile(path, O_RDONLY);
  if (!fd.ok()) {
    // The seed's words; its "stat" is what it fails at.
    const int error = StatusErrno(fd.status()).value_or(EIO);
    const char* cause = error == ENOENT ? "no such file or directory" : std::strerror(error);
    return MakeStatus(fd.status().code(),
                      "failed to read cni config \"" + path + "\": stat " + path + ": " + cause);
  }
  const std::string what = "cni config \"" + path + "\"";
  STRATA_ASSIGN_OR_RETURN(const std::string text, ReadAll(fd->get(), path, kMaxConfigBytes));
  StatusOr<CniConfig> config = ParseCniConfig(text, path.ends_with(".conflist"));
  return config.ok() ? std::move(config) : StatusOr<CniConfig>(Annotate(config.status(), what));
}

std::string WithPreviousResult(const std::string& config, std::string_view result) {
  if (result.empty()) {
    return config;
  }
  json all = Parse(config);
  all["prevResult"] = Parse(result);
  return Dump(all);
}

}  // namespace strata
