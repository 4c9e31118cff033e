// SPDX-License-Identifier: Apache-2.0
//
// TenantServers: a gRPC server for each tenant, all over one snapshotter: each shows its tenant's
// own snapshots, and the same control service. Start and Stop belong to one thread.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "services/control_source.h"
#include "services/rpc/server.h"
#include "services/rpc/snapshots_service.h"
#include "services/tenant_sockets.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/tenant_snapshotter.h"

namespace strata {

class TenantServers {
 public:
  // What `targets` names, of whose snapshotter each tenant has a share, and `control` must outlive
  // the servers.
  static StatusOr<std::unique_ptr<TenantServers>> Start(
      const SnapshotsServiceTargets& targets, ControlSource* control,
      std::vector<TenantSockets::Entrance> entrances);

  // Stops all at the same time; see RpcServer::Stop.
  void Stop(std::chrono::milliseconds patience);

 private:
  TenantServers() = default;

  // In this order: a server uses its tenant's snapshotter.
  std::vector<std::unique_ptr<TenantSnapshotter>> tenants_;
  std::vector<std::unique_ptr<RpcServer>> servers_;
};

}  // namespace strata
