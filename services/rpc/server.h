// SPDX-License-Identifier: Apache-2.0
//
// RpcServer: gRPC over listening unix sockets, with the snapshots service, the control service of
// kinds that have one, and the standard health service. Start and Stop belong to one thread.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "services/control_source.h"
#include "services/rpc/listener.h"
#include "services/rpc/snapshots_service.h"
#include "snapshotters/base/status.h"

namespace strata {

class RpcServer {
 public:
  // containerd's limit for requests and answers.
  static constexpr int kMaxMessageBytes = 16 * 1024 * 1024;

  // What `targets` names must outlive the server, and `control` too; null: no control service.
  static StatusOr<std::unique_ptr<RpcServer>> Start(SnapshotsServiceTargets targets,
                                                    ControlSource* control,
                                                    std::vector<Listener> listeners);

  // Stops with a patience of zero, if nobody called Stop.
  virtual ~RpcServer() = default;

  // Takes no further connection or call, lets calls in flight end for as long as `patience`, then
  // cancels them, and returns when none is left.
  virtual void Stop(std::chrono::milliseconds patience) = 0;
};

}  // namespace strata
