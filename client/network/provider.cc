// SPDX-License-Identifier: Apache-2.0
#include "client/network/provider.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "client/network/bridge.h"
#include "client/network/cni_config.h"
#include "client/network/cni_network.h"
#include "snapshotters/base/log.h"

namespace strata {
namespace {

using std::chrono::milliseconds;

class FixedNetwork final : public ContainerNetwork {
 public:
  explicit FixedNetwork(Kind kind) : kind_(kind) {}
  [[nodiscard]] Kind kind() const override { return kind_; }
  [[nodiscard]] const std::string& path() const override { return path_; }

 private:
  const Kind kind_;
  const std::string path_;
};

class FixedProvider final : public NetworkProvider {
 public:
  FixedProvider(ContainerNetwork::Kind kind, std::string name)
      : kind_(kind), name_(std::move(name)) {}

  StatusOr<std::unique_ptr<ContainerNetwork>> Take(std::string_view /*hostname*/,
                                                   milliseconds /*timeout*/) override {
    return std::make_unique<FixedNetwork>(kind_);
  }
  [[nodiscard]] const std::string& name() const override { return name_; }

 private:
  const ContainerNetwork::Kind kind_;
  const std::string name_;
};

std::string Environment(const NetworkOptions& options, const char* name) {
  if (options.environment) {
    return options.environment(name);
  }
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool Exists(const std::string& path) {
  struct stat found {};
  return ::stat(path.c_str(), &found) == 0;
}

// As Go's strconv.ParseBool; what it refuses is false here.
bool IsTrue(std::string_view text) {
  for (const std::string_view word : {"1", "t", "T", "TRUE", "true", "True"}) {
    if (text == word) {
      return true;
    }
  }
  return false;
}

std::string DirectoryOf(const NetworkOptions& options) {
  return options.state_directory + "/net/cni";
}

// RootlessKit with --detach-netns: its network is not that of the processes that it starts.
std::string OuterNamespace(const NetworkOptions& options) {
  const std::string state = Environment(options, "ROOTLESSKIT_STATE_DIR");
  const std::string path = state + "/netns";
  return !state.empty() && Exists(path) ? path : "";
}

CniNetworkOptions CniOptions(const NetworkOptions& options) {
  return {
      .outer_netns = OuterNamespace(options),
      .directory = DirectoryOf(options),
      .pool_size = options.cni_pool_size > 0 ? static_cast<size_t>(options.cni_pool_size) : 0,
      .init_lock_path = Environment(options, "BUILDKIT_CNI_INIT_LOCK_PATH"),
      .keep_pool = options.keep_pool,
  };
}

StatusOr<std::unique_ptr<NetworkProvider>> NewCni(const NetworkOptions& options) {
  CniNetworkOptions cni = CniOptions(options);
  STRATA_ASSIGN_OR_RETURN(cni.config, ReadCniConfig(options.cni_config_path));
  const std::string& folder = options.cni_binary_dir;
  struct stat found {};
  if (::stat(folder.c_str(), &found) != 0) {
    const int error = errno;
    const char* cause = error == ENOENT ? "no such file or directory" : std::strerror(error);
    return MakeStatus(
        error == ENOENT ? StatusCode::kNotFound : StatusCode::kInvalidArgument,
        "failed to read cni binary dir \"" + folder + "\": stat " + folder + ": " + cause);
  }
  cni.plugin_path = folder;
  return NewCniNetwork(std::move(cni));
}

StatusOr<std::unique_ptr<NetworkProvider>> NewBridge(const NetworkOptions& options) {
  CniNetworkOptions cni = CniOptions(options);
  STRATA_ASSIGN_OR_RETURN(
      BridgeNetwork bridge,
      MakeBridgeNetwork({.name = options.bridge_name,
                         .subnet = options.bridge_subnet,
                         .binary_dir = options.cni_binary_dir,
                         .rootless = !Environment(options, "ROOTLESSKIT_STATE_DIR").empty()}));
  cni.config = std::move(bridge.config);
  cni.plugin_path = std::move(bridge.plugin_path);
  cni.bridge = options.bridge_name;
  return NewCniNetwork(std::move(cni));
}

}  // namespace

StatusOr<std::unique_ptr<NetworkProvider>> NewDefaultNetwork(const NetworkOptions& options) {
  if (options.mode == "host") {
    return NewHostNetwork();
  }
  if (options.mode == "cni") {
    return NewCni(options);
  }
  if (options.mode == "bridge") {
    return NewBridge(options);
  }
  if (options.mode != "auto") {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "invalid network mode: \"" + options.mode + "\"");
  }
  if (IsTrue(Environment(options, "BUILDKIT_NETWORK_BRIDGE_AUTO"))) {
    return NewBridge(options);
  }
  if (Exists(options.cni_config_path)) {
    return NewCni(options);
  }
  LogWarn("using host network as the default");
  return NewHostNetwork();
}

std::unique_ptr<NetworkProvider> NewHostNetwork() {
  return std::make_unique<FixedProvider>(ContainerNetwork::Kind::kHost, "host");
}

std::unique_ptr<NetworkProvider> NewNoNetwork() {
  return std::make_unique<FixedProvider>(ContainerNetwork::Kind::kNone, "none");
}

StatusOr<size_t> ReleaseUnusedNetworks(const NetworkOptions& options) {
  return ReleaseUnusedCniNetworks(DirectoryOf(options), OuterNamespace(options));
}

}  // namespace strata
