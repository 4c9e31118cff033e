// SPDX-License-Identifier: Apache-2.0
#include "client/worker/worker.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <thread>
#include <utility>

#include "client/run/executor_mounts.h"
#include "client/worker/id_remap.h"
#include "client/worker/platforms.h"
#include "client/worker/registry_hosts.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/mutex.h"

namespace strata {
namespace {

constexpr const char* kLabelPrefix = "org.mobyproject.buildkit.worker.";

std::string Hostname() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

// Cancels a call when its time is up.
class Limit {
 public:
  Limit(CallContext& call, std::chrono::milliseconds limit)
      : thread_([this, &call, deadline = std::chrono::steady_clock::now() + limit] {
          const MutexLock lock(mutex_);
          while (!done_) {
            if (changed_.WaitUntil(mutex_, deadline)) {
              call.Cancel();
              return;
            }
          }
        }) {}
  ~Limit() {
    {
      const MutexLock lock(mutex_);
      done_ = true;
      changed_.SignalAll();
    }
    thread_.join();
  }
  Limit(const Limit&) = delete;
  Limit& operator=(const Limit&) = delete;

 private:
  Mutex mutex_;
  CondVar changed_;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace

std::string NetworkLabel(const WorkerConfig& config) {
  if (config.network_mode == "cni" || config.network_mode == "bridge") {
    return "cni";
  }
  const bool configured = ::access(config.cni_config_path.c_str(), F_OK) == 0;
  return config.network_mode == "auto" && configured ? "cni" : "host";
}

Worker::~Worker() = default;

StatusOr<std::unique_ptr<Worker>> Worker::Open(const WorkerConfig& config,
                                               const WorkerEnvironment& environment) {
  STRATA_RETURN_IF_ERROR(CheckEnabled(config, environment.variable("PATH").value_or("")));
  std::unique_ptr<Worker> worker(new Worker(config));
  STRATA_ASSIGN_OR_RETURN(IdMaps maps, ReadIdMaps(config.user_remap, environment.read_file));
  worker->uid_map_ = std::move(maps.uids);
  worker->gid_map_ = std::move(maps.gids);
  std::vector<std::string> warnings;
  STRATA_ASSIGN_OR_RETURN(worker->hosts_, RegistryHosts(config.registries, &warnings));
  for (const std::string& warning : warnings) {
    LogWarn(warning);
  }
  STRATA_ASSIGN_OR_RETURN(worker->plan_, PlanSnapshotter(config));
  std::optional<WorkerState::Guest> guest;
  if (!worker->uid_map_.empty()) {
    guest = {.uid = HostId(worker->uid_map_, 0), .gid = HostId(worker->gid_map_, 0)};
  }
  STRATA_ASSIGN_OR_RETURN(worker->state_,
                          WorkerState::Open(config.root, worker->plan_.name, guest));
  return worker;
}

WorkerInfo Worker::Info() const {
  WorkerInfo info{.id = state_->worker_id(), .gc_rules = GcRulesOf(config_)};
  const std::vector<std::pair<std::string, std::string>> own = {
      {"executor", "oci"},
      {"snapshotter", plan_.name},
      {"hostname", Hostname()},
      {"network", NetworkLabel(config_)},
      {"oci.process-mode", config_.no_process_sandbox ? "no-sandbox" : "sandbox"},
      {"selinux.enabled", config_.selinux ? "true" : "false"},
  };
  for (const auto& [name, value] : own) {
    info.labels[kLabelPrefix + name] = value;
  }
  if (!config_.apparmor_profile.empty()) {
    info.labels[std::string(kLabelPrefix) + "apparmor.profile"] = config_.apparmor_profile;
  }
  for (const auto& [name, value] : config_.labels) {
    info.labels[name] = value;
  }
  // The configured ones first, then what else the machine can do.
  const std::vector<Platform> runnable = HostPlatforms();
  info.platforms = ParsePlatforms(config_.platforms).value_or(std::vector<Platform>());
  for (const Platform& platform : info.platforms) {
    if (std::find(runnable.begin(), runnable.end(), platform) == runnable.end()) {
      info.not_runnable.push_back(platform);
    }
  }
  for (const Platform& platform : runnable) {
    if (std::find(info.platforms.begin(), info.platforms.end(), platform) == info.platforms.end()) {
      info.platforms.push_back(platform);
    }
  }
  return info;
}

StatusOr<WorkerSnapshots*> Worker::Snapshots() {
  if (snapshots_ == nullptr) {
    if (snapshotter_ == nullptr) {
      STRATA_ASSIGN_OR_RETURN(snapshotter_, OpenSnapshotter(plan_, config_, hosts_, *state_));
    }
    STRATA_ASSIGN_OR_RETURN(
        snapshots_,
        WorkerSnapshots::Create(snapshotter_->snapshotter(), {.worker_id = state_->worker_id(),
                                                              .holds_directory = state_->holds()}));
  }
  return snapshots_.get();
}

StatusOr<ContentStore*> Worker::Content() {
  if (content_ == nullptr) {
    STRATA_ASSIGN_OR_RETURN(content_, ContentStore::Open(state_->content()));
  }
  return content_.get();
}

StatusOr<Puller*> Worker::Images() {
  if (images_ == nullptr) {
    STRATA_ASSIGN_OR_RETURN(ContentStore * content, Content());
    STRATA_ASSIGN_OR_RETURN(WorkerSnapshots * snapshots, Snapshots());
    credentials_ =
        std::make_unique<DockerConfigCredentials>(DockerConfigCredentials::DefaultPath());
    STRATA_ASSIGN_OR_RETURN(images_, Puller::Create(*content, *snapshots, *credentials_));
  }
  return images_.get();
}

StatusOr<Executor*> Worker::OpenExecutor(bool for_runs) {
  if (executor_ != nullptr) {
    return executor_.get();
  }
  if (for_runs) {
    STRATA_ASSIGN_OR_RETURN(network_, NewDefaultNetwork({.mode = config_.network_mode,
                                                         .state_directory = state_->network(),
                                                         .cni_config_path = config_.cni_config_path,
                                                         .cni_binary_dir = config_.cni_binary_path,
                                                         .cni_pool_size = config_.cni_pool_size,
                                                         .bridge_name = config_.bridge_name,
                                                         .bridge_subnet = config_.bridge_subnet}));
  } else {
    network_ = NewNoNetwork();
  }
  STRATA_ASSIGN_OR_RETURN(executor_,
                          Executor::Create({.directory = state_->executor(),
                                            .binary = config_.binary,
                                            .rootless = config_.rootless,
                                            .no_process_sandbox = config_.no_process_sandbox,
                                            .apparmor_profile = config_.apparmor_profile,
                                            .selinux = config_.selinux,
                                            .default_cgroup_parent = config_.default_cgroup_parent,
                                            .dns = config_.dns,
                                            .uid_map = uid_map_,
                                            .gid_map = gid_map_},
                                           *network_));
  return executor_.get();
}

StatusOr<PullOptions> Worker::OptionsForPull() const {
  STRATA_ASSIGN_OR_RETURN(const std::vector<Platform> platforms, ParsePlatforms(config_.platforms));
  PullOptions options;
  options.hosts = hosts_;
  options.platform = platforms.empty() ? HostPlatform() : platforms.front();
  options.lazy = IsLazy(plan_);
  return options;
}

StatusOr<uint64_t> Worker::RemoveBlobs() {
  STRATA_ASSIGN_OR_RETURN(ContentStore * content, Content());
  StatusOr<uint64_t> bytes = content->RemoveUnreferenced();
  if (bytes.status().code() == StatusCode::kUnavailable) {
    LogInfo("blobs stay for now", {{"reason", std::string(StatusMessage(bytes.status()))}});
    return 0;
  }
  return bytes;
}

Status Worker::Collect(std::chrono::milliseconds limit) {
  const std::vector<GcRule> rules = GcRulesOf(config_);
  if (rules.empty()) {
    return OkStatus();
  }
  STRATA_ASSIGN_OR_RETURN(const std::optional<FileLock> collection, state_->TakeCollection());
  if (!collection.has_value()) {
    return OkStatus();
  }
  STRATA_ASSIGN_OR_RETURN(WorkerSnapshots * snapshots, Snapshots());
  CallContext call;
  const Limit limited(call, limit);
  STRATA_ASSIGN_OR_RETURN(const Pruned pruned, Prune(call, *snapshots, rules, nullptr));
  for (const auto& [name, status] : pruned.failed) {
    LogWarn("a snapshot cannot be pruned, ignoring",
            {{"snapshot", name}, {"error", std::string(StatusMessage(status))}});
  }
  return RemoveBlobs().status();
}

}  // namespace strata
