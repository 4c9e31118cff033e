// SPDX-License-Identifier: Apache-2.0
//
// Credentials for registries. Secrets appear in no error text and in no log.
#pragma once

#include <ctime>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/registry/reference.h"

namespace strata {

struct Credential {
  std::string username;
  std::string secret;
  std::string identity_token;  // an OAuth2 refresh token; then there is no secret
};

// Safe from any thread. Called on the I/O thread of HttpClient: answers from memory or a small
// local file, never from a network.
class CredentialSource {
 public:
  virtual ~CredentialSource() = default;
  // `host` is the server that is asked (registry-1.docker.io). Nothing: ask without.
  virtual StatusOr<std::optional<Credential>> Find(std::string_view host,
                                                   const Reference& reference) = 0;
};

// The `auths` of $DOCKER_CONFIG/config.json or ~/.docker/config.json. Credential helpers are not
// called. Read again when the file has changed; without a file nothing is found. A file that does
// not parse is FailedPrecondition.
class DockerConfigCredentials : public CredentialSource {
 public:
  explicit DockerConfigCredentials(std::string path) : path_(std::move(path)) {}

  // The path by the environment; empty when there is neither $DOCKER_CONFIG nor $HOME.
  static std::string DefaultPath();

  StatusOr<std::optional<Credential>> Find(std::string_view host,
                                           const Reference& reference) override;

 private:
  Status Refresh() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  Mutex mutex_;
  std::map<std::string, Credential> by_host_ ABSL_GUARDED_BY(mutex_);
  Status state_ ABSL_GUARDED_BY(mutex_);
  // Of the file as it was read: what tells a change.
  timespec modified_ ABSL_GUARDED_BY(mutex_){};
  ino_t inode_ ABSL_GUARDED_BY(mutex_) = 0;
  off_t size_ ABSL_GUARDED_BY(mutex_) = -1;
};

// The `auths` of a docker config.json, by host without scheme and path. InvalidArgument does not
// quote the text.
StatusOr<std::map<std::string, Credential>> ParseDockerConfig(std::string_view json);

}  // namespace strata
