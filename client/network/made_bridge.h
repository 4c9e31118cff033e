// SPDX-License-Identifier: Apache-2.0
//
// MadeBridge: whether the bridge of a folder of CNI namespaces was there before, so that only one
// that our plugins made is removed, and only with the last namespace. Safe from any thread and any
// number of processes.
#pragma once

#include <optional>
#include <string>

#include "client/file_lock.h"
#include "client/network/cni_namespaces.h"
#include "snapshotters/base/status.h"

namespace strata {

class MadeBridge {
 public:
  // `namespaces` must outlive this. `outer_netns`: where the bridge is, "": here.
  MadeBridge(const CniNamespaces& namespaces, std::string outer_netns)
      : namespaces_(namespaces), outer_netns_(std::move(outer_netns)) {}

  // Before a plugin may make it; while the lock lives nobody removes the bridge. DeadlineExceeded.
  StatusOr<FileLock> BeforeSetup(const std::string& name, const CniLimits& limits);
  // Removes the one that was made, unless a namespace is left or somebody is making one.
  Status RemoveIfUnused();

 private:
  Status Here(const std::function<Status()>& work) const;

  const CniNamespaces& namespaces_;
  const std::string outer_netns_;
};

}  // namespace strata
