// SPDX-License-Identifier: Apache-2.0
//
// TenantSockets: which listening socket is which tenant's. A socket that the service manager passes
// is that of the tenant whose name its descriptor has; a tenant without one gets one of our own.
// Used by one thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "services/config.h"
#include "services/fd_store.h"
#include "services/rpc/listener.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class TenantSockets {
 public:
  // What ServiceFdStore::TakeSockets gives: the name of each, and the socket.
  using Passed = std::vector<std::pair<std::string, UniqueFd>>;

  // The default tenant's are those named "grpc" and those that nobody has named. FailedPrecondition
  // that says what to do: a name that no tenant of `config` has, or a tenant that has neither a
  // socket passed nor a path. What a predecessor kept of a tenant that is not configured any more
  // is given up.
  static StatusOr<TenantSockets> Assign(const DaemonConfig& config, Passed passed);

  // FailedPrecondition: another server answers on one of the paths that Open would bind.
  [[nodiscard]] Status CheckFree() const;

  struct Entrance {
    std::string tenant;  // "": the default one
    std::vector<Listener> listeners;
  };
  // To be called once; the default tenant comes first. Sockets of our own are kept with the manager
  // where it can, so that clients of a daemon that is being restarted wait instead of being
  // refused. On error none of ours is bound.
  StatusOr<std::vector<Entrance>> Open(ServiceFdStore& fds);

 private:
  struct Tenant {
    std::string name;
    std::string socket;
    std::vector<UniqueFd> passed;
  };

  static StatusOr<std::vector<Listener>> OpenOne(Tenant tenant, ServiceFdStore& fds);

  std::vector<Tenant> tenants_;
  std::vector<std::string> stale_;  // names of kept sockets that nobody wants
};

}  // namespace strata
