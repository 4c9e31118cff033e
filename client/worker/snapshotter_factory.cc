// SPDX-License-Identifier: Apache-2.0
#include "client/worker/snapshotter_factory.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "client/dial.h"
#include "client/proxy_snapshotter.h"
#include "client/worker/registry_hosts.h"
#include "client/worker/stargz_process.h"
#include "client/worker/turn_snapshotter.h"
#include "snapshotters/base/log.h"
#include "snapshotters/fuse_overlayfs/fuse_overlayfs_snapshotter.h"
#include "snapshotters/native/native_snapshotter.h"
#include "snapshotters/overlayfs/overlayfs_snapshotter.h"

namespace strata {
namespace {

using std::chrono::milliseconds;

constexpr std::string_view kStargz = "stargz";
constexpr std::array<std::string_view, 4> kKinds = {"native", "overlayfs", "fuse-overlayfs",
                                                    kStargz};
// As the seed's namespace, so that a server which keeps those apart sees a worker.
constexpr const char* kNamespace = "buildkit";
// A server that is stopped in a call is found out by then, whatever the call's own limit is.
constexpr milliseconds kKeepalive{10'000};

class InProcess final : public OpenedSnapshotter {
 public:
  explicit InProcess(std::unique_ptr<TurnSnapshotter> snapshotter)
      : snapshotter_(std::move(snapshotter)) {}
  Snapshotter& snapshotter() override { return *snapshotter_; }

 private:
  const std::unique_ptr<TurnSnapshotter> snapshotter_;
};

class Proxied final : public OpenedSnapshotter {
 public:
  Proxied(std::unique_ptr<StargzProcess> process, std::unique_ptr<Snapshotter> snapshotter)
      : process_(std::move(process)), snapshotter_(std::move(snapshotter)) {}
  Snapshotter& snapshotter() override { return *snapshotter_; }

 private:
  const std::unique_ptr<StargzProcess> process_;  // none: somebody else's
  const std::unique_ptr<Snapshotter> snapshotter_;
};

// A worker's root may be on tmpfs, as BuildKit's may: what is lost with it can be pulled again.
template <typename Kind, typename KindOptions>
std::function<StatusOr<std::unique_ptr<Snapshotter>>()> Opener(const std::string& root) {
  return [root]() -> StatusOr<std::unique_ptr<Snapshotter>> {
    KindOptions options;
    options.root = root;
    options.allow_volatile = true;
    // A process that ends soon removes now what it removes.
    options.reaper.synchronous = true;
    STRATA_ASSIGN_OR_RETURN(auto opened, Kind::Create(options));
    return std::unique_ptr<Snapshotter>(std::move(opened));
  };
}

StatusOr<std::unique_ptr<OpenedSnapshotter>> OpenInProcess(const std::string& name,
                                                           const WorkerConfig& config,
                                                           const WorkerState& state) {
  const std::string root = state.snapshots();
  TurnSnapshotter::Options options{.directory = state.path(),
                                   .patience = config.snapshotter_timeout};
  if (name == "overlayfs") {
    options.open = Opener<OverlayfsSnapshotter, OverlayfsOptions>(root);
  } else if (name == "fuse-overlayfs") {
    options.open = Opener<FuseOverlayfsSnapshotter, FuseOverlayfsOptions>(root);
  } else {
    options.open = Opener<NativeSnapshotter, NativeOptions>(root);
  }
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<TurnSnapshotter> snapshotter,
                          TurnSnapshotter::Create(std::move(options)));
  return std::make_unique<InProcess>(std::move(snapshotter));
}

StatusOr<std::unique_ptr<OpenedSnapshotter>> OpenProxy(const std::string& socket,
                                                       const std::string& name,
                                                       const WorkerConfig& config,
                                                       std::unique_ptr<StargzProcess> process) {
  STRATA_ASSIGN_OR_RETURN(
      std::shared_ptr<grpc::Channel> channel,
      Dial(socket, {.wait_for_ready = config.snapshotter_wait, .keepalive = kKeepalive}));
  return std::make_unique<Proxied>(
      std::move(process),
      NewProxySnapshotter(std::move(channel), {.snapshotter_name = name,
                                               .containerd_namespace = kNamespace,
                                               .call_timeout = config.snapshotter_timeout,
                                               .wait_for_ready = true}));
}

}  // namespace

StatusOr<SnapshotterPlan> PlanSnapshotter(const WorkerConfig& config,
                                          const SnapshotterProbes& probes) {
  if (!config.proxy_snapshotter_path.empty()) {
    // Looks at the path only: nothing is connected to yet.
    STRATA_RETURN_IF_ERROR(Dial(config.proxy_snapshotter_path, {}).status());
    return SnapshotterPlan{.name = config.snapshotter, .proxy = config.proxy_snapshotter_path};
  }
  if (config.snapshotter == "auto") {
    STRATA_ASSIGN_OR_RETURN(const SnapshotterChoice choice, ChooseSnapshotter(config.root, probes));
    LogSnapshotterChoice(choice);
    if (choice.kind == "native") {
      LogWarn("auto snapshotter: native copies the whole image for every container",
              {{"reason", choice.reasons.empty() ? "" : choice.reasons.front()}});
    }
    return SnapshotterPlan{.name = choice.kind, .proxy = ""};
  }
  if (std::find(kKinds.begin(), kKinds.end(), config.snapshotter) == kKinds.end()) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "unknown snapshotter name: \"" + config.snapshotter + "\"");
  }
  return SnapshotterPlan{.name = config.snapshotter, .proxy = ""};
}

bool IsLazy(const SnapshotterPlan& plan) {
  return plan.name == kStargz;
}

StatusOr<std::unique_ptr<OpenedSnapshotter>> OpenSnapshotter(const SnapshotterPlan& plan,
                                                             const WorkerConfig& config,
                                                             const HostsConfig& hosts,
                                                             const WorkerState& state) {
  if (!plan.proxy.empty()) {
    return OpenProxy(plan.proxy, plan.name, config, nullptr);
  }
  if (plan.name != kStargz) {
    return OpenInProcess(plan.name, config, state);
  }
  std::map<std::string, std::string> settings = StargzResolver(hosts);
  settings.insert(config.stargz.begin(), config.stargz.end());
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<StargzProcess> process,
                          StargzProcess::Use({.state = state.path(),
                                              .root = state.snapshots(),
                                              .settings = std::move(settings),
                                              .wait = config.snapshotter_wait}));
  const std::string socket = process->socket();
  return OpenProxy(socket, plan.name, config, std::move(process));
}

}  // namespace strata
