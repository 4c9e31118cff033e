// SPDX-License-Identifier: Apache-2.0
//
// NetworkProvider: where a container's network namespace comes from (worker-parity 2.4). Safe from
// any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"

namespace strata {

// One container's network; the destructor gives it back.
class ContainerNetwork {
 public:
  virtual ~ContainerNetwork() = default;
  enum class Kind {
    kHost,  // the host's: no namespace of its own
    kNone,  // a namespace that the runtime makes, with nothing in it
    kPath,  // the one at path()
  };
  [[nodiscard]] virtual Kind kind() const = 0;
  [[nodiscard]] virtual const std::string& path() const = 0;
  // The container could change its network (it had CAP_NET_ADMIN): nobody else may get it.
  virtual void Spoil() {}
};

// Must outlive what it gave.
class NetworkProvider {
 public:
  virtual ~NetworkProvider() = default;
  // `hostname`: "" for the default. DeadlineExceeded; Unavailable "CNI setup error: ...".
  virtual StatusOr<std::unique_ptr<ContainerNetwork>> Take(std::string_view hostname,
                                                           std::chrono::milliseconds timeout) = 0;
  // "host", "none", "cni": the worker's label.
  [[nodiscard]] virtual const std::string& name() const = 0;
};

struct NetworkOptions {
  std::string mode = "auto";    // auto, bridge, cni, host
  std::string state_directory;  // absolute; namespaces that are kept: <state_directory>/net/cni
  std::string cni_config_path;
  std::string cni_binary_dir;
  int cni_pool_size = 0;
  std::string bridge_name = "buildkit0";
  std::string bridge_subnet = "10.10.0.0/16";
  std::function<std::string(const char* name)> environment;  // empty: the process's
  // Namespaces that wait in the pool stay for the next process (see cni_network.h); false: they go
  // with the provider.
  bool keep_pool = true;
};

// By mode, with the errors of worker-parity 1.4: InvalidArgument, NotFound. The one for a container
// that asks for nothing. Nothing is set up, and nothing of the state looked at, before the first
// Take.
StatusOr<std::unique_ptr<NetworkProvider>> NewDefaultNetwork(const NetworkOptions& options);
std::unique_ptr<NetworkProvider> NewHostNetwork();
std::unique_ptr<NetworkProvider> NewNoNetwork();

// Gives back what no process uses: namespaces that wait in the pool, what killed processes have
// left, and the bridge that mode "bridge" has made. How many namespaces that were.
StatusOr<size_t> ReleaseUnusedNetworks(const NetworkOptions& options);

}  // namespace strata
