// SPDX-License-Identifier: Apache-2.0
//
// Networks by CNI plugins, with a pool of namespaces that are set up before they are wanted.
//
// The pool is in the file system (cni_namespaces.h), because a worker is a process for one run: a
// run takes a namespace that waits there and gives it back at its end. While it runs, and after the
// namespace was taken, a thread of its process makes as many as are missing, one process at a time;
// what it has begun when the run ends it finishes. Processes that take nothing neither fill nor
// clean. That thread also releases what killed processes have left, and spare ones (more than the
// pool's size) that have waited for five minutes.
#pragma once

#include <memory>
#include <string>

#include "client/network/cni_config.h"
#include "client/network/provider.h"
#include "snapshotters/base/status.h"

namespace strata {

struct CniNetworkOptions {
  CniConfig config;
  std::string plugin_path;
  std::string outer_netns;  // see CniAttachment
  std::string directory;
  size_t pool_size = 0;        // 0: each one is made for its container, and goes with it
  std::string init_lock_path;  // flock(2) on it during the first set-up; "": none
  std::string bridge;          // removed with the last namespace if a plugin made it; "": none
  bool keep_pool = true;
};

std::unique_ptr<NetworkProvider> NewCniNetwork(CniNetworkOptions options);

// See ReleaseUnusedNetworks.
StatusOr<size_t> ReleaseUnusedCniNetworks(const std::string& directory,
                                          const std::string& outer_netns);

}  // namespace strata
