// SPDX-License-Identifier: Apache-2.0
//
// What a worker is told: built-in values, then buildkitd.toml, then flags (worker-parity 1.1-1.4).
// Plain data and pure functions; safe from any thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/network/name_files.h"
#include "client/worker/gc_policy.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/status.h"

namespace strata {

// [registry."HOST"], as it stands in the file.
struct RegistryConfig {
  struct KeyPair {
    std::string key;
    std::string cert;

    bool operator==(const KeyPair&) const = default;
  };
  std::vector<std::string> mirrors;
  std::optional<bool> http;
  std::optional<bool> insecure;
  std::vector<std::string> ca_files;
  std::vector<KeyPair> key_pairs;
  std::vector<std::string> tls_config_dirs;

  bool operator==(const RegistryConfig&) const = default;
};

// [[worker.oci.gcpolicy]]: a rule whose bound may be a share of the disk.
struct GcPolicyEntry {
  bool all = false;
  DiskSpace keep_bytes;
  std::chrono::seconds keep_duration{0};
  std::vector<std::string> filters;

  bool operator==(const GcPolicyEntry&) const = default;
};

struct WorkerConfig {
  std::string root = "/var/lib/buildkit";
  LogLevel log_level = LogLevel::kWarn;

  // [worker.oci] and its flags, under the names of their keys.
  std::optional<bool> enabled;  // nothing: auto
  std::map<std::string, std::string> labels;
  std::string snapshotter = "auto";
  std::string proxy_snapshotter_path;
  std::vector<std::string> platforms;  // empty: what the machine can run
  std::string network_mode = "auto";
  std::string cni_config_path = "/etc/buildkit/cni.json";
  std::string cni_binary_path = "/opt/cni/bin";
  int cni_pool_size = 0;
  std::string bridge_name = "buildkit0";
  std::string bridge_subnet = "10.10.0.0/16";
  std::string binary;
  std::string apparmor_profile;
  bool selinux = false;
  bool rootless = false;
  bool no_process_sandbox = false;
  std::optional<bool> gc;  // nothing: on
  DiskSpace gc_keep_storage;
  std::vector<GcPolicyEntry> gc_policy;
  int max_parallelism = 0;  // 0: no bound
  std::string default_cgroup_parent;
  std::string user_remap;
  // [worker.oci.stargzSnapshotter]: dotted keys and their values, both as TOML has them.
  std::map<std::string, std::string> stargz;

  DnsConfig dns;
  std::map<std::string, RegistryConfig> registries;

  // Ours: how long to wait for a snapshotter to be there (or for one's turn at it), and for one
  // call of it.
  std::chrono::seconds snapshotter_wait{10};
  std::chrono::seconds snapshotter_timeout{60};

  // Where values come from that are not built in, by their key ("worker.oci.snapshotter"):
  // "/etc/buildkit/buildkitd.toml:7", "--oci-worker-snapshotter".
  std::map<std::string, std::string, std::less<>> origins;
  // What was read and has no effect, or not the one that might be thought.
  std::vector<std::string> warnings;

  [[nodiscard]] std::string OriginOf(std::string_view key) const;  // "built-in" for all others
};

// The world that a configuration depends on; injected, so that tests need none of it.
struct WorkerEnvironment {
  std::function<std::optional<std::string>(const char* name)> variable;
  // NotFound when it is not there.
  std::function<StatusOr<std::string>(const std::string& path)> read_file;
  bool in_user_namespace = false;
  uid_t effective_user = 0;

  static WorkerEnvironment Real();
};

// Built-in values; the paths of a worker without root are in its user's home.
WorkerConfig BuiltInConfig(const WorkerEnvironment& environment);
// Where buildkitd.toml is unless --config says so.
std::string DefaultConfigPath(const WorkerEnvironment& environment);

// Puts the values of `toml` over `config`. InvalidArgument: "failed to parse config: PATH: line 3:
// ..."; keys of other parts of BuildKit become warnings.
Status ApplyConfigFile(const std::string& path, const std::string& toml, WorkerConfig* config);

// What follows from all values together: the network of a worker without root, and what does not go
// with one another (InvalidArgument).
Status FinishConfig(WorkerConfig* config);

// FailedPrecondition: there is to be no worker, or there can be none without a runtime in
// `search_path` (the environment's PATH).
Status CheckEnabled(const WorkerConfig& config, const std::string& search_path);

// The rules by which a worker on `config.root` prunes; empty: not at all.
std::vector<GcRule> GcRulesOf(const WorkerConfig& config);

// "", "auto": nothing; else as Go's strconv.ParseBool, with its text.
StatusOr<std::optional<bool>> ParseBoolOrAuto(std::string_view text);
StatusOr<bool> ParseGoBool(std::string_view text);
// "com.example.foo=bar". InvalidArgument: "invalid value X".
Status AddLabels(const std::vector<std::string>& texts, std::map<std::string, std::string>* labels);

}  // namespace strata
