// SPDX-License-Identifier: Apache-2.0
//
// RegistryHost: a server that may have an image, and the order in which they are asked. Pure, safe
// from any thread.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/registry/reference.h"

namespace strata {

struct TlsOptions {
  std::vector<std::string> ca_files;  // PEM, trusted besides the system's
  std::string client_cert;            // PEM file; empty: none
  std::string client_key;             // PEM file
  bool insecure = false;              // certificates are not verified

  bool operator==(const TlsOptions&) const = default;
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct RegistryHost {
  std::string scheme;  // "http" or "https"
  std::string host;    // host[:port]
  std::string path = "/v2";
  HttpHeaders headers;  // sent to this host only, never to where it redirects
  TlsOptions tls;
  std::chrono::milliseconds request_timeout{30'000};  // <= 0: only the deadline of the caller
  bool is_mirror = false;                             // is told the origin by ?ns=

  // Where a blob of the reference is.
  [[nodiscard]] std::string BlobUrl(const Reference& reference, const std::string& digest) const;
  // Where its manifest of a tag or digest is.
  [[nodiscard]] std::string ManifestUrl(const Reference& reference, const std::string& tag) const;

 private:
  [[nodiscard]] std::string UrlOf(const Reference& reference, const std::string& what) const;
};

struct MirrorConfig {
  std::string host;  // host[:port], or with http:// or https:// in front
  std::string path;  // of the API on it, as RegistryHost has it; empty: the usual one
  bool insecure = false;
  // 0: the default of HostsConfig; negative: none.
  std::chrono::milliseconds request_timeout{0};
  HttpHeaders headers;
  TlsOptions tls;
};

// What is configured for one origin, as containerd and stargz-snapshotter have it.
struct OriginConfig {
  std::vector<MirrorConfig> mirrors;
  TlsOptions tls;  // of the origin itself
  HttpHeaders headers;
  bool insecure = false;  // plain http
};

struct HostsConfig {
  std::chrono::milliseconds request_timeout{30'000};
  std::map<std::string, OriginConfig> origins;  // by the host of a reference
};

// Mirrors in their order, the origin last; never empty. docker.io is asked at
// registry-1.docker.io. Loopback and insecure hosts are spoken to in plain http.
std::vector<RegistryHost> HostsFor(const Reference& reference, const HostsConfig& config);

}  // namespace strata
