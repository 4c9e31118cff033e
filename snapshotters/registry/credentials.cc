// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/credentials.h"

#include <absl/strings/escaping.h>
#include <absl/strings/string_view.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

constexpr size_t kLargestConfig = size_t{1} << 20;

// "https://index.docker.io/v1/" -> "index.docker.io"
std::string HostOfKey(std::string_view key) {
  const size_t scheme = key.find("://");
  if (scheme != std::string_view::npos) {
    key.remove_prefix(scheme + 3);
  }
  return std::string(key.substr(0, key.find('/')));
}

std::string Text(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::optional<Credential> ReadEntry(const nlohmann::json& entry) {
  if (!entry.is_object()) {
    return std::nullopt;
  }
  Credential credential;
  credential.username = Text(entry, "username");
  credential.secret = Text(entry, "password");
  credential.identity_token = Text(entry, "identitytoken");
  const std::string auth = Text(entry, "auth");
  std::string decoded;
  if (!auth.empty() && absl::Base64Unescape(auth, &decoded)) {
    const size_t colon = decoded.find(':');
    if (colon != std::string::npos) {
      credential.username = decoded.substr(0, colon);
      credential.secret = decoded.substr(colon + 1);
      // Docker pads with NUL.
      credential.secret.resize(credential.secret.find_last_not_of('\0') + 1);
    }
  }
  if (credential.secret.empty() && credential.identity_token.empty()) {
    return std::nullopt;
  }
  return credential;
}

}  // namespace

StatusOr<std::map<std::string, Credential>> ParseDockerConfig(std::string_view json) {
  const nlohmann::json root = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) {
    return MakeStatus(StatusCode::kInvalidArgument, "not a JSON object");
  }
  std::map<std::string, Credential> by_host;
  const auto auths = root.find("auths");
  if (auths == root.end() || !auths->is_object()) {
    return by_host;
  }
  for (const auto& [key, entry] : auths->items()) {
    std::optional<Credential> credential = ReadEntry(entry);
    if (credential.has_value()) {
      by_host.insert_or_assign(HostOfKey(key), *std::move(credential));
    }
  }
  return by_host;
}

std::string DockerConfigCredentials::DefaultPath() {
  const char* folder = std::getenv("DOCKER_CONFIG");
  if (folder != nullptr && *folder != '\0') {
    return std::string(folder) + "/config.json";
  }
  const char* home = std::getenv("HOME");
  return home == nullptr || *home == '\0' ? "" : std::string(home) + "/.docker/config.json";
}

Status DockerConfigCredentials::Refresh() {
  struct stat now {};
  if (path_.empty() || stat(path_.c_str(), &now) != 0) {
    if (!path_.empty() && errno != ENOENT && errno != ENOTDIR) {
      return ErrnoStatus(errno, "stat '" + path_ + "'");
    }
    by_host_.clear();
    size_ = -1;
    return state_ = OkStatus();
  }
  if (now.st_size == size_ && now.st_ino == inode_ && now.st_mtim.tv_sec == modified_.tv_sec &&
      now.st_mtim.tv_nsec == modified_.tv_nsec) {
    return state_;
  }
  by_host_.clear();
  // Set before it is read: a change in between is then seen the next time.
  size_ = now.st_size;
  inode_ = now.st_ino;
  modified_ = now.st_mtim;
  auto file = OpenFile(path_, O_RDONLY);
  if (!file.ok()) {
    size_ = -1;
    return state_ = file.status();
  }
  const auto content = ReadAll(file->get(), path_, kLargestConfig);
  if (!content.ok()) {
    size_ = -1;
    return state_ = content.status();
  }
  auto parsed = ParseDockerConfig(*content);
  if (!parsed.ok()) {
    return state_ =
               MakeStatus(StatusCode::kFailedPrecondition,
                          "read '" + path_ + "': " + std::string(StatusMessage(parsed.status())));
  }
  by_host_ = *std::move(parsed);
  return state_ = OkStatus();
}

StatusOr<std::optional<Credential>> DockerConfigCredentials::Find(std::string_view host,
                                                                  const Reference& /*reference*/) {
  std::string key(host);
  if (key == "registry-1.docker.io" || key == "docker.io") {
    key = "index.docker.io";
  }
  const MutexLock lock(mutex_);
  STRATA_RETURN_IF_ERROR(Refresh());
  const auto found = by_host_.find(key);
  if (found == by_host_.end()) {
    return std::optional<Credential>();
  }
  return std::optional<Credential>(found->second);
}

}  // namespace strata
