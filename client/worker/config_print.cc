// SPDX-License-Identifier: Apache-2.0
#include "client/worker/config_print.h"

#include <string_view>
#include <vector>

#include "client/image/image_manifest.h"
#include "client/worker/platforms.h"
#include "client/worker/toml_text.h"

namespace strata {
namespace {

std::string Boolean(bool value) {
  return value ? "true" : "false";
}

std::string Space(const DiskSpace& space) {
  return TomlString(space.percentage != 0 ? std::to_string(space.percentage) + "%"
                                          : std::to_string(space.bytes) + "B");
}

class Printer {
 public:
  explicit Printer(const WorkerConfig& config) : config_(config) {}

  std::string Print();

 private:
  void Table(const std::string& table, const std::string& header) {
    table_ = table;
    text_ += (text_.empty() ? "" : "\n") + header + "\n";
  }
  void Line(const std::string& key, const std::string& value, const std::string& origin) {
    text_ += key + " = " + value + "  # " + origin + "\n";
  }
  // A value of the present table.
  void Value(const std::string& key, const std::string& value) {
    Line(key, value, config_.OriginOf(table_ + key));
  }
  // One that has no way to be said in the file when it is not set.
  void Optional(const std::string& key, const std::string& value, bool set,
                const std::string& meaning) {
    if (set) {
      Value(key, value);
    } else {
      text_ += "# " + key + ": " + meaning + "  # built-in\n";
    }
  }
  void Oci();
  void Policies();
  void Stargz();
  void Registries();

  const WorkerConfig& config_;
  std::string table_;
  std::string text_;
};

void Printer::Oci() {
  Table("worker.oci.", "[worker.oci]");
  Optional("enabled", Boolean(config_.enabled.value_or(true)), config_.enabled.has_value(), "auto");
  Value("snapshotter", TomlString(config_.snapshotter));
  Value("proxySnapshotterPath", TomlString(config_.proxy_snapshotter_path));
  std::vector<std::string> platforms = config_.platforms;
  if (platforms.empty()) {
    for (const Platform& platform : HostPlatforms()) {
      platforms.push_back(ShowPlatform(platform));
    }
  }
  Value("platforms", TomlList(platforms));
  Value("networkMode", TomlString(config_.network_mode));
  Value("cniConfigPath", TomlString(config_.cni_config_path));
  Value("cniBinaryPath", TomlString(config_.cni_binary_path));
  Value("cniPoolSize", std::to_string(config_.cni_pool_size));
  Value("bridgeName", TomlString(config_.bridge_name));
  Value("bridgeSubnet", TomlString(config_.bridge_subnet));
  Value("binary", TomlString(config_.binary));
  Value("apparmor-profile", TomlString(config_.apparmor_profile));
  Value("selinux", Boolean(config_.selinux));
  Value("rootless", Boolean(config_.rootless));
  Value("noProcessSandbox", Boolean(config_.no_process_sandbox));
  Value("gc", Boolean(config_.gc.value_or(true)));
  Optional("gckeepstorage", Space(config_.gc_keep_storage), config_.gc_keep_storage != DiskSpace{},
           "10% of the disk");
  Value("max-parallelism", std::to_string(config_.max_parallelism));
  Value("defaultCgroupParent", TomlString(config_.default_cgroup_parent));
  Value("userRemapUnsupported", TomlString(config_.user_remap));
  if (!config_.labels.empty()) {
    Table("worker.oci.labels.", "[worker.oci.labels]");
    for (const auto& [name, value] : config_.labels) {
      Line(TomlKey(name), TomlString(value), config_.OriginOf("worker.oci.labels." + name));
    }
  }
}

// The rules that are in effect, also when they are the built-in ones.
void Printer::Policies() {
  const std::string origin = !config_.gc_policy.empty() ? config_.OriginOf("worker.oci.gcpolicy")
                             : config_.gc_keep_storage != DiskSpace{}
                                 ? "built-in, with " + config_.OriginOf("worker.oci.gckeepstorage")
                                 : "built-in";
  for (const GcRule& rule : GcRulesOf(config_)) {
    Table("", "[[worker.oci.gcpolicy]]  # " + origin);
    text_ += "all = " + Boolean(rule.all) + "\n";
    text_ += "keepBytes = " + Space({.bytes = rule.keep_bytes}) + "\n";
    text_ +=
        "keepDuration = " + TomlString(std::to_string(rule.keep_duration.count()) + "s") + "\n";
    text_ += "filters = " + TomlList(rule.filters) + "\n";
  }
}

void Printer::Stargz() {
  if (config_.stargz.empty()) {
    return;
  }
  Table("", "[worker.oci.stargzSnapshotter]");
  for (const auto& [key, value] : config_.stargz) {
    Line(key, value, config_.OriginOf("worker.oci.stargzSnapshotter"));
  }
}

void Printer::Registries() {
  for (const auto& [host, registry] : config_.registries) {
    Table("", "[registry." + TomlKey(host) + "]  # " + config_.OriginOf("registry." + host));
    text_ += "mirrors = " + TomlList(registry.mirrors) + "\n";
    if (registry.http.has_value()) {
      text_ += "http = " + Boolean(*registry.http) + "\n";
    }
    if (registry.insecure.has_value()) {
      text_ += "insecure = " + Boolean(*registry.insecure) + "\n";
    }
    text_ += "ca = " + TomlList(registry.ca_files) + "\n";
    text_ += "tlsconfigdir = " + TomlList(registry.tls_config_dirs) + "\n";
    std::string pairs;
    for (const RegistryConfig::KeyPair& pair : registry.key_pairs) {
      pairs += (pairs.empty() ? "" : ", ");
      pairs += "{ key = " + TomlString(pair.key) + ", cert = " + TomlString(pair.cert) + " }";
    }
    text_ += "keypair = [" + pairs + "]\n";
  }
}

std::string Printer::Print() {
  Value("root", TomlString(config_.root));
  Value("debug", Boolean(config_.log_level == LogLevel::kDebug));
  const auto ours = [this](const std::string& flag, std::chrono::seconds value) {
    text_ += "# --" + flag + " " + std::to_string(value.count()) + "  # " + config_.OriginOf(flag) +
             "\n";
  };
  ours("snapshotter-wait", config_.snapshotter_wait);
  ours("snapshotter-timeout", config_.snapshotter_timeout);
  Oci();
  Policies();
  Stargz();
  Table("dns.", "[dns]");
  Value("nameservers", TomlList(config_.dns.nameservers));
  Value("options", TomlList(config_.dns.options));
  Value("searchDomains", TomlList(config_.dns.search_domains));
  Registries();
  return text_;
}

}  // namespace

std::string PrintConfig(const WorkerConfig& config) {
  return Printer(config).Print();
}

}  // namespace strata
