// SPDX-License-Identifier: Apache-2.0
//
// The built-in network of mode "bridge": one bridge for all containers, made by CNI plugins. Safe
// from any thread.
#pragma once

#include <string>

#include "client/network/cni_config.h"
#include "snapshotters/base/status.h"

namespace strata {

struct BridgeOptions {
  std::string name;
  std::string subnet;      // "10.10.0.0/16"
  std::string binary_dir;  // of the plugins
  bool rootless = false;   // behind RootlessKit
};

struct BridgeNetwork {
  CniConfig config;
  std::string plugin_path;
};

// With the plugins of `binary_dir`, or those that are called buildkit-cni-* in PATH. NotFound
// `failed to find CNI bridge "DIR/bridge" or buildkit-cni-bridge`; InvalidArgument.
StatusOr<BridgeNetwork> MakeBridgeNetwork(const BridgeOptions& options);

// Whether the calling thread's network namespace has an interface of that name.
bool InterfaceExists(const std::string& name);
// Removes a bridge there; OK, too, when there is none.
Status RemoveBridge(const std::string& name);

}  // namespace strata
