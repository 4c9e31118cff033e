// SPDX-License-Identifier: Apache-2.0
//
// buildkitd.toml: which keys there are, and what each one sets.
#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <limits>
#include <utility>

#include "client/worker/config.h"
#include "client/worker/toml_text.h"
#include "snapshotters/base/config_value.h"

namespace strata {
namespace {

using Set = std::function<Status(const ConfigValue&)>;
using Keys = std::vector<std::pair<std::string, Set>>;

constexpr int64_t kMegabyte = 1'000'000;
// A bare gckeepstorage above this many MB (1 PB) is bytes that were meant.
constexpr int64_t kMostKeptMegabytes = 1'000'000'000;
constexpr int64_t kMostInt = std::numeric_limits<int>::max();

// What the file has for parts of BuildKit that are not here.
constexpr std::array<std::string_view, 13> kElsewhere = {
    "grpc",   "otel",         "worker.containerd",     "history", "frontend",
    "system", "entitlements", "insecure-entitlements", "log",     "cdi",
    "trace",  "tls",          "provenanceEnvDir"};

std::string Cased(std::string_view text, int (*change)(int)) {
  std::string out;
  for (const char letter : text) {
    out += static_cast<char>(change(static_cast<unsigned char>(letter)));
  }
  return out;
}

// As the seed's TOML library takes names: as they are, or all in lower or in upper case.
bool Means(std::string_view written, std::string_view key) {
  return written == key || written == Cased(key, std::tolower) ||
         written == Cased(key, std::toupper);
}

std::string NamesOf(const Keys& keys) {
  std::vector<std::string> names;
  for (const auto& [name, set] : keys) {
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  std::string list;
  for (const std::string& name : names) {
    list += (list.empty() ? "" : ", ") + name;
  }
  return list;
}

// Gives each entry of a table to the key that it is; `noted` hears of what was set.
Status ReadTable(const ConfigValue& table, const Keys& keys,
                 const std::function<void(const std::string& key, const ConfigValue&)>& noted) {
  if (table.table() == nullptr) {
    return table.Bad("expected a table");
  }
  std::vector<std::string> seen;
  for (const auto& [name, value] : *table.table()) {
    const auto key = std::find_if(keys.begin(), keys.end(), [&written = name](const auto& known) {
      return Means(written, known.first);
    });
    if (key == keys.end()) {
      return value.Unknown(NamesOf(keys));
    }
    if (std::find(seen.begin(), seen.end(), key->first) != seen.end()) {
      return value.Bad("is there twice, in another spelling");
    }
    seen.push_back(key->first);
    STRATA_RETURN_IF_ERROR(key->second(value));
    if (noted) {
      noted(key->first, value);
    }
  }
  return OkStatus();
}

// In the words of the seed's library where a text stands for a truth value.
StatusOr<bool> Boolean(const ConfigValue& value) {
  if (const auto text = value.Text(); text.ok()) {
    return value.Bad("Can't convert " + *text + "(string) to bool");
  }
  return value.Boolean();
}

Set TextInto(std::string* field) {
  return [field](const ConfigValue& value) -> Status {
    STRATA_ASSIGN_OR_RETURN(*field, value.Text());
    return OkStatus();
  };
}

Set TextsInto(std::vector<std::string>* field) {
  return [field](const ConfigValue& value) -> Status {
    STRATA_ASSIGN_OR_RETURN(*field, value.Texts());
    return OkStatus();
  };
}

template <typename Field>
Set BooleanInto(Field* field) {
  return [field](const ConfigValue& value) -> Status {
    STRATA_ASSIGN_OR_RETURN(const bool boolean, Boolean(value));
    *field = boolean;
    return OkStatus();
  };
}

Set CountInto(int* field) {
  return [field](const ConfigValue& value) -> Status {
    STRATA_ASSIGN_OR_RETURN(const int64_t number, value.Number(0, kMostInt));
    *field = static_cast<int>(number);
    return OkStatus();
  };
}

// A whole number, or the text of one: how files write sizes and durations.
StatusOr<std::string> TextOrNumber(const ConfigValue& value) {
  if (const auto number = value.Number(0); number.ok()) {
    return std::to_string(*number);
  }
  if (auto text = value.Text(); text.ok()) {
    return text;
  }
  return value.Bad("expected a string or a whole number from 0");
}

Status SetSpace(const ConfigValue& value, DiskSpace* space) {
  STRATA_ASSIGN_OR_RETURN(const std::string text, TextOrNumber(value));
  const auto parsed = ParseDiskSpace(text);
  if (!parsed.ok()) {
    return value.Bad("unmarshal text: " + std::string(StatusMessage(parsed.status())));
  }
  *space = *parsed;
  return OkStatus();
}

Status SetDuration(const ConfigValue& value, std::chrono::seconds* duration) {
  STRATA_ASSIGN_OR_RETURN(const std::string text, TextOrNumber(value));
  const auto parsed = ParseKeepDuration(text);
  if (!parsed.ok()) {
    return value.Bad("unmarshal text: " + std::string(StatusMessage(parsed.status())));
  }
  *duration = *parsed;
  return OkStatus();
}

// A bare number is MB, as the documentation has it and the flag too. BuildKit itself takes bytes.
Status SetKeepStorage(const ConfigValue& value, WorkerConfig* config) {
  const auto megabytes = value.Number(0);
  if (!megabytes.ok()) {
    return SetSpace(value, &config->gc_keep_storage);
  }
  if (*megabytes > kMostKeptMegabytes) {
    return value.Bad("a bare number is MB: for bytes write \"" + std::to_string(*megabytes) +
                     "B\"");
  }
  config->gc_keep_storage = {.bytes = *megabytes * kMegabyte};
  if (*megabytes > 0) {
    config->warnings.push_back(
        "line " + std::to_string(value.line()) + ": gckeepstorage = " + std::to_string(*megabytes) +
        " is taken as MB, as documented; BuildKit takes bytes. A text with a unit is the same to "
        "both");
  }
  return OkStatus();
}

StatusOr<GcPolicyEntry> ReadPolicy(const ConfigValue& value) {
  GcPolicyEntry entry;
  const Keys keys = {
      {"all", BooleanInto(&entry.all)},
      {"keepBytes", [&entry](const ConfigValue& v) { return SetSpace(v, &entry.keep_bytes); }},
      {"keepDuration",
       [&entry](const ConfigValue& v) { return SetDuration(v, &entry.keep_duration); }},
      {"filters", TextsInto(&entry.filters)},
  };
  STRATA_RETURN_IF_ERROR(ReadTable(value, keys, nullptr));
  return entry;
}

Status SetPolicies(const ConfigValue& value, WorkerConfig* config) {
  if (value.list() == nullptr) {
    return value.Bad("expected a list of tables");
  }
  config->gc_policy.clear();
  for (const ConfigValue& item : *value.list()) {
    STRATA_ASSIGN_OR_RETURN(GcPolicyEntry entry, ReadPolicy(item));
    config->gc_policy.push_back(std::move(entry));
  }
  return OkStatus();
}

StatusOr<RegistryConfig::KeyPair> ReadKeyPair(const ConfigValue& value) {
  RegistryConfig::KeyPair pair;
  STRATA_RETURN_IF_ERROR(
      ReadTable(value, {{"key", TextInto(&pair.key)}, {"cert", TextInto(&pair.cert)}}, nullptr));
  if (pair.key.empty() || pair.cert.empty()) {
    return value.Bad("expected both of 'key' and 'cert'");
  }
  return pair;
}

StatusOr<RegistryConfig> ReadRegistry(const ConfigValue& value) {
  RegistryConfig registry;
  const Set key_pairs = [&registry](const ConfigValue& list) -> Status {
    if (list.list() == nullptr) {
      return list.Bad("expected a list of tables");
    }
    for (const ConfigValue& item : *list.list()) {
      STRATA_ASSIGN_OR_RETURN(RegistryConfig::KeyPair pair, ReadKeyPair(item));
      registry.key_pairs.push_back(std::move(pair));
    }
    return OkStatus();
  };
  const Keys keys = {
      {"mirrors", TextsInto(&registry.mirrors)},
      {"http", BooleanInto(&registry.http)},
      {"insecure", BooleanInto(&registry.insecure)},
      {"ca", TextsInto(&registry.ca_files)},
      {"keypair", key_pairs},
      {"tlsconfigdir", TextsInto(&registry.tls_config_dirs)},
  };
  STRATA_RETURN_IF_ERROR(ReadTable(value, keys, nullptr));
  return registry;
}

// One reading of one file.
class FileReader {
 public:
  FileReader(std::string path, WorkerConfig* config) : path_(std::move(path)), config_(config) {}

  Status Read(const ConfigValue& file) {
    const Keys keys = {
        {"root", TextInto(&config_->root)},
        {"debug",
         [this](const ConfigValue& value) -> Status {
           STRATA_ASSIGN_OR_RETURN(const bool debug, Boolean(value));
           config_->log_level = debug ? LogLevel::kDebug : config_->log_level;
           return OkStatus();
         }},
        {"worker", [this](const ConfigValue& value) { return ReadWorkers(value); }},
        {"dns", [this](const ConfigValue& value) { return ReadDns(value); }},
        {"registry", [this](const ConfigValue& value) { return ReadRegistries(value); }},
    };
    return ReadTable(WithoutElsewhere(file, ""), keys, Noting(""));
  }

 private:
  // Notes values of `table` ("worker.oci."), but for tables, whose entries note themselves.
  std::function<void(const std::string&, const ConfigValue&)> Noting(const std::string& table) {
    return [this, table](const std::string& key, const ConfigValue& value) {
      if (value.table() == nullptr) {
        Note(table + key, value);
      }
    };
  }

  void Note(const std::string& key, const ConfigValue& value) {
    config_->origins[key] = path_ + ":" + std::to_string(value.line());
  }

  // The table without what is for other parts of BuildKit: a warning each.
  ConfigValue WithoutElsewhere(const ConfigValue& table, const std::string& prefix) {
    ConfigValue::Table kept;
    if (table.table() == nullptr) {
      return table;
    }
    for (const auto& [name, value] : *table.table()) {
      const std::string key = prefix + name;
      if (std::any_of(kElsewhere.begin(), kElsewhere.end(),
                      [&key](std::string_view known) { return Means(key, known); })) {
        config_->warnings.push_back(path_ + ":" + std::to_string(value.line()) + ": '" + key +
                                    "' is for another part of BuildKit and has no effect here");
      } else {
        kept.emplace_back(name, value);
      }
    }
    return {table.path(), table.line(), std::move(kept)};
  }

  Status ReadWorkers(const ConfigValue& value) {
    return ReadTable(WithoutElsewhere(value, "worker."),
                     {{"oci", [this](const ConfigValue& oci) { return ReadOci(oci); }}}, nullptr);
  }

  Status ReadDns(const ConfigValue& value) {
    DnsConfig& dns = config_->dns;
    return ReadTable(value,
                     {{"nameservers", TextsInto(&dns.nameservers)},
                      {"options", TextsInto(&dns.options)},
                      {"searchDomains", TextsInto(&dns.search_domains)}},
                     Noting("dns."));
  }

  Status ReadRegistries(const ConfigValue& value) {
    if (value.table() == nullptr) {
      return value.Bad("expected a table");
    }
    for (const auto& [host, table] : *value.table()) {
      STRATA_ASSIGN_OR_RETURN(config_->registries[host], ReadRegistry(table));
      Note("registry." + host, table);
    }
    return OkStatus();
  }

  Status ReadLabels(const ConfigValue& value) {
    if (value.table() == nullptr) {
      return value.Bad("expected a table");
    }
    for (const auto& [name, entry] : *value.table()) {
      STRATA_ASSIGN_OR_RETURN(config_->labels[name], entry.Text());
      Note("worker.oci.labels." + name, entry);
    }
    return OkStatus();
  }

  Status ReadStargz(const ConfigValue& value) {
    Note("worker.oci.stargzSnapshotter", value);
    return Annotate(FlattenToml(value, "", &config_->stargz), "failed to parse stargz config");
  }

  Status ReadOci(const ConfigValue& value) {
    WorkerConfig& config = *config_;
    const Keys keys = {
        {"enabled", BooleanInto(&config.enabled)},
        {"labels", [this](const ConfigValue& v) { return ReadLabels(v); }},
        {"platforms", TextsInto(&config.platforms)},
        {"snapshotter", TextInto(&config.snapshotter)},
        {"proxySnapshotterPath", TextInto(&config.proxy_snapshotter_path)},
        {"networkMode", TextInto(&config.network_mode)},
        {"cniConfigPath", TextInto(&config.cni_config_path)},
        {"cniBinaryPath", TextInto(&config.cni_binary_path)},
        {"cniPoolSize", CountInto(&config.cni_pool_size)},
        {"bridgeName", TextInto(&config.bridge_name)},
        {"bridgeSubnet", TextInto(&config.bridge_subnet)},
        {"binary", TextInto(&config.binary)},
        {"apparmor-profile", TextInto(&config.apparmor_profile)},
        {"selinux", BooleanInto(&config.selinux)},
        {"rootless", BooleanInto(&config.rootless)},
        {"noProcessSandbox", BooleanInto(&config.no_process_sandbox)},
        {"gc", BooleanInto(&config.gc)},
        {"gckeepstorage", [this](const ConfigValue& v) { return SetKeepStorage(v, config_); }},
        {"gcpolicy", [this](const ConfigValue& v) { return SetPolicies(v, config_); }},
        {"max-parallelism", CountInto(&config.max_parallelism)},
        {"defaultCgroupParent", TextInto(&config.default_cgroup_parent)},
        {"userRemapUnsupported", TextInto(&config.user_remap)},
        {"stargzSnapshotter", [this](const ConfigValue& v) { return ReadStargz(v); }},
    };
    return ReadTable(value, keys, Noting("worker.oci."));
  }

  const std::string path_;
  WorkerConfig* const config_;
};

}  // namespace

Status ApplyConfigFile(const std::string& path, const std::string& toml, WorkerConfig* config) {
  const auto apply = [&]() -> Status {
    STRATA_ASSIGN_OR_RETURN(const ConfigValue file, ConfigValue::Parse(toml));
    return FileReader(path, config).Read(file);
  };
  return Annotate(apply(), "failed to parse config: " + path);
}

}  // namespace strata
