// SPDX-License-Identifier: Apache-2.0
#include "client/worker/config.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/os/overlay_probe.h"

namespace strata {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr int64_t kDefaultKeptPercent = 10;

StatusOr<std::string> ReadFile(const std::string& path) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY | O_NOCTTY | O_NONBLOCK));
  return ReadAll(fd.get(), path, kMaxFileBytes);
}

// Whether files belong into a home: the seed's question.
bool IsRootless(const WorkerEnvironment& environment) {
  const std::optional<std::string> user = environment.variable("USER");
  return environment.in_user_namespace && user.has_value() && !user->empty() && *user != "root";
}

// "$XDG/buildkit", or "~/REST/buildkit".
std::string InHome(const WorkerEnvironment& environment, const char* xdg, std::string_view rest) {
  const std::optional<std::string> directory = environment.variable(xdg);
  if (directory.has_value() && !directory->empty()) {
    return *directory + "/buildkit";
  }
  return environment.variable("HOME").value_or("") + "/" + std::string(rest) + "/buildkit";
}

bool InPath(const std::string& name, const std::string& search_path) {
  if (name.find('/') != std::string::npos) {
    return ::access(name.c_str(), X_OK) == 0;
  }
  std::string_view rest = search_path;
  while (!rest.empty()) {
    const std::string_view directory = rest.substr(0, rest.find(':'));
    rest.remove_prefix(std::min(rest.size(), directory.size() + 1));
    if (!directory.empty() && ::access((std::string(directory) + "/" + name).c_str(), X_OK) == 0) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::string WorkerConfig::OriginOf(std::string_view key) const {
  const auto found = origins.find(key);
  return found == origins.end() ? "built-in" : found->second;
}

WorkerEnvironment WorkerEnvironment::Real() {
  return {
      .variable = [](const char* name) -> std::optional<std::string> {
        const char* value = ::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets any
        return value == nullptr ? std::nullopt : std::optional<std::string>(value);
      },
      .read_file = ReadFile,
      .in_user_namespace = RunningInUserNamespace(),
      .effective_user = ::geteuid(),
  };
}

WorkerConfig BuiltInConfig(const WorkerEnvironment& environment) {
  WorkerConfig config;
  if (IsRootless(environment)) {
    config.root = InHome(environment, "XDG_DATA_HOME", ".local/share");
    config.cni_config_path = InHome(environment, "XDG_CONFIG_HOME", ".config") + "/cni.json";
  }
  return config;
}

std::string DefaultConfigPath(const WorkerEnvironment& environment) {
  return (IsRootless(environment) ? InHome(environment, "XDG_CONFIG_HOME", ".config")
                                  : "/etc/buildkit") +
         "/buildkitd.toml";
}

Status FinishConfig(WorkerConfig* config) {
  if (config->snapshotter.empty()) {
    config->snapshotter = "auto";
  }
  if (config->rootless && config->network_mode == "auto") {
    config->network_mode = "host";
    config->origins["worker.oci.networkMode"] = "rootless";
  }
  if (!config->no_process_sandbox) {
    return OkStatus();
  }
  config->warnings.emplace_back(
      "NoProcessSandbox is enabled. Note that NoProcessSandbox allows build containers to kill "
      "(and "
      "potentially ptrace) an arbitrary process in the BuildKit host namespace. NoProcessSandbox "
      "should be enabled only when the BuildKit is running in a container as an unprivileged "
      "user.");
  return config->rootless ? OkStatus()
                          : MakeStatus(StatusCode::kInvalidArgument,
                                       "can't enable NoProcessSandbox without Rootless");
}

Status CheckEnabled(const WorkerConfig& config, const std::string& search_path) {
  const auto none = [](const std::string& why) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "no worker found, rebuild the buildkit daemon? (" + why + ")");
  };
  if (config.enabled.has_value()) {
    return *config.enabled
               ? OkStatus()
               : none("the OCI worker is switched off by " + config.OriginOf("worker.oci.enabled"));
  }
  if (!config.binary.empty()) {
    return InPath(config.binary, search_path)
               ? OkStatus()
               : none("skipping oci worker, as " + config.binary + " does not exist");
  }
  return InPath("runc", search_path) || InPath("buildkit-runc", search_path)
             ? OkStatus()
             : none("skipping oci worker, as runc does not exist");
}

std::vector<GcRule> GcRulesOf(const WorkerConfig& config) {
  if (!config.gc.value_or(true)) {
    return {};
  }
  if (config.gc_policy.empty()) {
    const DiskSpace keep = config.gc_keep_storage == DiskSpace{}
                               ? DiskSpace{.percentage = kDefaultKeptPercent}
                               : config.gc_keep_storage;
    return DefaultGcPolicy(keep.AsBytes(config.root));
  }
  std::vector<GcRule> rules;
  for (const GcPolicyEntry& entry : config.gc_policy) {
    rules.push_back({.all = entry.all,
                     .keep_bytes = entry.keep_bytes.AsBytes(config.root),
                     .keep_duration = entry.keep_duration,
                     .filters = entry.filters});
  }
  return rules;
}

StatusOr<bool> ParseGoBool(std::string_view text) {
  constexpr std::array<std::string_view, 6> kTrue = {"1", "t", "T", "TRUE", "true", "True"};
  constexpr std::array<std::string_view, 6> kFalse = {"0", "f", "F", "FALSE", "false", "False"};
  if (std::find(kTrue.begin(), kTrue.end(), text) != kTrue.end()) {
    return true;
  }
  if (std::find(kFalse.begin(), kFalse.end(), text) != kFalse.end()) {
    return false;
  }
  return MakeStatus(StatusCode::kInvalidArgument,
                    "strconv.ParseBool: parsing \"" + std::string(text) + "\": invalid syntax");
}

StatusOr<std::optional<bool>> ParseBoolOrAuto(std::string_view text) {
  std::string lower;
  for (const char letter : text) {
    lower += static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  }
  if (lower.empty() || lower == "auto") {
    return std::optional<bool>();
  }
  STRATA_ASSIGN_OR_RETURN(const bool value, ParseGoBool(text));
  return std::optional<bool>(value);
}

Status AddLabels(const std::vector<std::string>& texts,
                 std::map<std::string, std::string>* labels) {
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos) {
      return MakeStatus(StatusCode::kInvalidArgument, "invalid value " + text);
    }
    (*labels)[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return OkStatus();
}

}  // namespace strata
