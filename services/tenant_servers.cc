// SPDX-License-Identifier: Apache-2.0
#include "services/tenant_servers.h"

#include <thread>
#include <utility>

namespace strata {

StatusOr<std::unique_ptr<TenantServers>> TenantServers::Start(
    const SnapshotsServiceTargets& targets, ControlSource* control,
    std::vector<TenantSockets::Entrance> entrances) {
  std::unique_ptr<TenantServers> all(new TenantServers());
  for (TenantSockets::Entrance& entrance : entrances) {
    // The default tenant, too, has only a share: where tenants were configured once, it must not
    // take theirs for its own.
    all->tenants_.push_back(
        std::make_unique<TenantSnapshotter>(targets.snapshotter, entrance.tenant));
    const SnapshotsServiceTargets of_tenant = {.snapshotter = *all->tenants_.back(),
                                               .mutations = targets.mutations,
                                               .walks = targets.walks,
                                               .remote = targets.remote,
                                               .slow_removal = targets.slow_removal};
    STRATA_ASSIGN_OR_RETURN(std::unique_ptr<RpcServer> server,
                            RpcServer::Start(of_tenant, control, std::move(entrance.listeners)));
    all->servers_.push_back(std::move(server));
  }
  return all;
}

void TenantServers::Stop(std::chrono::milliseconds patience) {
  std::vector<std::thread> stopping;
  for (const std::unique_ptr<RpcServer>& server : servers_) {
    stopping.emplace_back([&server, patience] { server->Stop(patience); });
  }
  for (std::thread& thread : stopping) {
    thread.join();
  }
}

}  // namespace strata
