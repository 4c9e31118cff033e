// SPDX-License-Identifier: Apache-2.0
#include "services/tenant_sockets.h"

#include <algorithm>

#include "snapshotters/base/log.h"
#include "snapshotters/core/tenant_snapshotter.h"

namespace strata {
namespace {

// What sd_listen_fds(3) calls a descriptor that came without a name.
constexpr std::string_view kNoName = "unknown";

Status NobodysSocket(const std::string& name) {
  return MakeStatus(
      StatusCode::kFailedPrecondition,
      "a socket was passed under the name '" + name +
          "', which is that of no tenant: set FileDescriptorName= in its socket unit to 'grpc' for "
          "the default tenant, or to the 'name' of a [[tenant]] of the configuration");
}

Status NoSocket(const std::string& tenant) {
  return MakeStatus(StatusCode::kFailedPrecondition,
                    "tenant '" + tenant +
                        "' has no socket: start a socket unit with FileDescriptorName=" + tenant +
                        " before the daemon, or give its [[tenant]] a 'socket'");
}

}  // namespace

StatusOr<TenantSockets> TenantSockets::Assign(const DaemonConfig& config, Passed passed) {
  TenantSockets sockets;
  sockets.tenants_.push_back({.name = "", .socket = config.socket, .passed = {}});
  for (const TenantConfig& tenant : config.tenants) {
    sockets.tenants_.push_back({.name = tenant.name, .socket = tenant.socket, .passed = {}});
  }
  std::vector<Tenant>& tenants = sockets.tenants_;
  for (auto& one : passed) {
    const std::string& name = one.first;
    auto tenant = std::find_if(tenants.begin(), tenants.end(), [&name](const Tenant& known) {
      return name == ServiceFdStore::SocketName(known.name) ||
             (!known.name.empty() && name == known.name);
    });
    // A socket unit that names no descriptor calls it by its own name, which no tenant can have.
    const bool unnamed = name == kNoName || !TenantSnapshotter::CheckName(name).ok();
    if (tenant != tenants.end()) {
      tenant->passed.push_back(std::move(one.second));
    } else if (name.starts_with(ServiceFdStore::SocketName("") + ".")) {
      sockets.stale_.push_back(name);
    } else if (name == kNoName || (unnamed && tenants.size() == 1)) {
      tenants.front().passed.push_back(std::move(one.second));
    } else {
      return NobodysSocket(name);
    }
  }
  for (const Tenant& tenant : tenants) {
    if (tenant.socket.empty() && tenant.passed.empty()) {
      return NoSocket(tenant.name);
    }
  }
  return sockets;
}

Status TenantSockets::CheckFree() const {
  for (const Tenant& tenant : tenants_) {
    if (tenant.passed.empty()) {
      STRATA_RETURN_IF_ERROR(Listener::CheckFree(tenant.socket));
    }
  }
  return OkStatus();
}

StatusOr<std::vector<Listener>> TenantSockets::OpenOne(Tenant tenant, ServiceFdStore& fds) {
  STRATA_ASSIGN_OR_RETURN(std::vector<Listener> listeners,
                          Listener::FromServiceManager(std::move(tenant.passed), tenant.socket));
  if (!listeners.empty()) {
    return listeners;
  }
  const std::string name = ServiceFdStore::SocketName(tenant.name);
  fds.DropSocket(name);
  STRATA_ASSIGN_OR_RETURN(Listener own, Listener::Bind(tenant.socket));
  if (fds.available()) {
    if (const Status kept = fds.KeepSocket(name, own.fd()); kept.ok()) {
      own.LeaveFile();
    } else {
      LogWarn("clients will be refused while this service is restarted",
              {{"socket", tenant.socket}, {"error", std::string(StatusMessage(kept))}});
    }
  }
  listeners.push_back(std::move(own));
  return listeners;
}

StatusOr<std::vector<TenantSockets::Entrance>> TenantSockets::Open(ServiceFdStore& fds) {
  for (const std::string& name : stale_) {
    LogInfo("a socket of a tenant that is not configured any more is closed", {{"name", name}});
    fds.DropSocket(name);
  }
  std::vector<Entrance> entrances;
  for (Tenant& tenant : tenants_) {
    const std::string name = tenant.name;
    STRATA_ASSIGN_OR_RETURN(std::vector<Listener> listeners, OpenOne(std::move(tenant), fds));
    entrances.push_back({.tenant = name, .listeners = std::move(listeners)});
  }
  return entrances;
}

}  // namespace strata
