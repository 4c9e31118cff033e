// SPDX-License-Identifier: Apache-2.0
#include "client/worker/registry_hosts.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string_view>
#include <utility>

#include "client/worker/toml_text.h"
#include "snapshotters/registry/url.h"

namespace strata {
namespace {

Status CheckReadable(const std::string& path, const std::string& what) {
  if (::access(path.c_str(), R_OK) == 0) {
    return OkStatus();
  }
  return MakeStatus(
      StatusCode::kInvalidArgument,
      what + ": " + std::string(StatusMessage(ErrnoStatus(errno, "open '" + path + "'"))));
}

// Names in a folder; none when it is not there or not for us.
StatusOr<std::vector<std::string>> NamesIn(const std::string& path) {
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) {
    return errno == ENOENT || errno == EACCES
               ? StatusOr<std::vector<std::string>>(std::vector<std::string>())
               : ErrnoStatus(errno, "open '" + path + "'");
  }
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(directory)) {
    names.emplace_back(entry->d_name);
  }
  (void)::closedir(directory);
  std::sort(names.begin(), names.end());
  return names;
}

// What tlsconfigdir has: *.crt is an authority, X.cert and X.key are a pair.
Status AddFolder(const std::string& path, RegistryConfig* registry) {
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(path));
  const std::string folder = path + "/";
  for (const std::string& name : names) {
    if (name.ends_with(".crt")) {
      registry->ca_files.push_back(folder + name);
    } else if (name.ends_with(".cert")) {
      const std::string pair =
          folder + name.substr(0, name.size() - std::string_view("cert").size());
      registry->key_pairs.push_back({.key = pair + "key", .cert = pair + "cert"});
    }
  }
  return OkStatus();
}

StatusOr<TlsOptions> TlsOf(const std::string& host, RegistryConfig registry,
                           std::vector<std::string>* warnings) {
  for (const std::string& folder : registry.tls_config_dirs) {
    STRATA_RETURN_IF_ERROR(AddFolder(folder, &registry));
  }
  for (const std::string& file : registry.ca_files) {
    STRATA_RETURN_IF_ERROR(CheckReadable(file, "failed to read " + file));
  }
  for (const RegistryConfig::KeyPair& pair : registry.key_pairs) {
    STRATA_RETURN_IF_ERROR(CheckReadable(pair.cert, "failed to load keypair for " + pair.cert));
    STRATA_RETURN_IF_ERROR(CheckReadable(pair.key, "failed to load keypair for " + pair.cert));
  }
  TlsOptions tls{.ca_files = registry.ca_files, .insecure = registry.insecure.value_or(false)};
  if (!registry.key_pairs.empty()) {
    tls.client_cert = registry.key_pairs.front().cert;
    tls.client_key = registry.key_pairs.front().key;
  }
  if (registry.key_pairs.size() > 1) {
    warnings->push_back("registry '" + host + "': of several key pairs the first is used, " +
                        tls.client_cert);
  }
  return tls;
}

// How a host is spoken to that has no entry of its own, or one that does not say.
bool PlainHttp(const std::string& host, const RegistryConfig& registry) {
  return registry.http.value_or(IsLoopback(host) && !registry.insecure.value_or(false));
}

// "host[:port][/path]" of an entry of `mirrors`.
StatusOr<MirrorConfig> MirrorOf(const std::string& text,
                                const std::map<std::string, RegistryConfig>& registries,
                                std::vector<std::string>* warnings) {
  const size_t slash = text.find('/');
  const std::string host = text.substr(0, slash);
  const auto found = registries.find(host);
  const RegistryConfig options = found == registries.end() ? RegistryConfig{} : found->second;
  MirrorConfig mirror;
  mirror.host = (PlainHttp(host, options) ? "http://" : "https://") + host;
  std::string path = slash == std::string::npos ? "" : text.substr(slash);
  while (path.ends_with('/')) {
    path.pop_back();
  }
  mirror.path = path.empty() ? "" : "/v2" + path;
  STRATA_ASSIGN_OR_RETURN(mirror.tls, TlsOf(host, options, warnings));
  return mirror;
}

std::string InlineTable(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string table;
  for (const auto& [name, value] : entries) {
    table += table.empty() ? "{ " : ", ";
    table += name;
    table += " = ";
    table += value;
  }
  return table + " }";
}

// TLS options under the names that strata-stargz has for them.
void AddTls(const TlsOptions& tls, std::vector<std::pair<std::string, std::string>>* entries) {
  if (!tls.ca_files.empty()) {
    entries->emplace_back("ca_file", TomlList(tls.ca_files));
  }
  if (!tls.client_cert.empty()) {
    entries->emplace_back("client_cert", TomlString(tls.client_cert));
    entries->emplace_back("client_key", TomlString(tls.client_key));
  }
  if (tls.insecure) {
    entries->emplace_back("skip_verify", "true");
  }
}

}  // namespace

StatusOr<HostsConfig> RegistryHosts(const std::map<std::string, RegistryConfig>& registries,
                                    std::vector<std::string>* warnings) {
  HostsConfig hosts;
  for (const auto& [host, registry] : registries) {
    OriginConfig origin;
    for (const std::string& text : registry.mirrors) {
      STRATA_ASSIGN_OR_RETURN(MirrorConfig mirror, MirrorOf(text, registries, warnings));
      origin.mirrors.push_back(std::move(mirror));
    }
    STRATA_ASSIGN_OR_RETURN(origin.tls, TlsOf(host, registry, warnings));
    origin.insecure = PlainHttp(host, registry);
    // Both: TLS with any certificate first, and without TLS where there is none. A loopback host is
    // asked without TLS by itself (HostsFor), so that TLS for one is said here, too.
    if (origin.insecure ? origin.tls.insecure : IsLoopback(host)) {
      origin.mirrors.push_back({.host = "https://" + host, .tls = origin.tls});
    }
    hosts.origins[host] = std::move(origin);
  }
  return hosts;
}

std::map<std::string, std::string> StargzResolver(const HostsConfig& hosts) {
  std::map<std::string, std::string> keys;
  for (const auto& [host, origin] : hosts.origins) {
    const std::string prefix = "resolver.host." + TomlKey(host) + ".";
    std::vector<std::pair<std::string, std::string>> own;
    AddTls(origin.tls, &own);
    own.emplace_back("insecure", origin.insecure ? "true" : "false");
    std::string mirrors;
    for (const MirrorConfig& mirror : origin.mirrors) {
      if (!mirror.path.empty()) {
        continue;  // strata-stargz knows mirrors by their hosts only: it asks the next one
      }
      std::vector<std::pair<std::string, std::string>> entries = {
          {"host", TomlString(mirror.host)}};
      AddTls(mirror.tls, &entries);
      mirrors += (mirrors.empty() ? "" : ", ") + InlineTable(entries);
    }
    own.emplace_back("mirrors", "[" + mirrors + "]");
    for (const auto& [name, value] : own) {
      keys[prefix + name] = value;
    }
  }
  return keys;
}

}  // namespace strata
