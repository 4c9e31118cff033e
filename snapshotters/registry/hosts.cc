// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/hosts.h"

#include <string_view>

#include "snapshotters/registry/url.h"

namespace strata {
namespace {

std::string SchemeOf(std::string_view host, bool insecure) {
  return insecure || IsLoopback(host) ? "http" : "https";
}

RegistryHost Mirror(const MirrorConfig& config, const HostsConfig& defaults) {
  RegistryHost mirror;
  std::string_view host = config.host;
  if (host.starts_with("http://")) {
    mirror.scheme = "http";
    host.remove_prefix(7);
  } else if (host.starts_with("https://")) {
    mirror.scheme = "https";
    host.remove_prefix(8);
  }
  mirror.host = host.substr(0, host.find('/'));
  if (mirror.scheme.empty()) {
    mirror.scheme = SchemeOf(mirror.host, config.insecure);
  }
  mirror.path = config.path.empty() ? mirror.path : config.path;
  mirror.headers = config.headers;
  mirror.tls = config.tls;
  mirror.request_timeout =
      config.request_timeout.count() == 0 ? defaults.request_timeout : config.request_timeout;
  mirror.is_mirror = true;
  return mirror;
}

}  // namespace

std::string RegistryHost::BlobUrl(const Reference& reference, const std::string& digest) const {
  return UrlOf(reference, "/blobs/" + digest);
}

std::string RegistryHost::ManifestUrl(const Reference& reference, const std::string& tag) const {
  return UrlOf(reference, "/manifests/" + tag);
}

std::string RegistryHost::UrlOf(const Reference& reference, const std::string& what) const {
  std::string url = scheme + "://" + host + path + "/" + reference.repository + what;
  if (is_mirror) {
    url += "?ns=" + PercentEncode(reference.host);
  }
  return url;
}

std::vector<RegistryHost> HostsFor(const Reference& reference, const HostsConfig& config) {
  std::vector<RegistryHost> hosts;
  RegistryHost origin;
  origin.host = reference.host == "docker.io" ? "registry-1.docker.io" : reference.host;
  origin.request_timeout = config.request_timeout;
  bool insecure = false;
  const auto found = config.origins.find(reference.host);
  if (found != config.origins.end()) {
    for (const MirrorConfig& mirror : found->second.mirrors) {
      hosts.push_back(Mirror(mirror, config));
    }
    origin.headers = found->second.headers;
    origin.tls = found->second.tls;
    insecure = found->second.insecure;
  }
  origin.scheme = SchemeOf(origin.host, insecure);
  hosts.push_back(std::move(origin));
  return hosts;
}

}  // namespace strata
