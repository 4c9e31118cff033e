// SPDX-License-Identifier: Apache-2.0
//
// A Snapshotter behind a gRPC channel. Safe from any thread; one call per thread at a time blocks
// that thread until the answer or the deadline.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "snapshotters/core/snapshotter.h"

namespace grpc {
class Channel;
}

namespace strata {

struct ProxyOptions {
  // Sent as `snapshotter` in every request, and as header containerd-namespace unless empty.
  std::string snapshotter_name;
  std::string containerd_namespace;
  // Every call ends by then, whatever the server does: DeadlineExceeded. 0 waits for ever (the
  // seed).
  std::chrono::milliseconds call_timeout{0};
  // Calls made while the server is down wait for it (within call_timeout) instead of failing at
  // once.
  bool wait_for_ready = false;
};

// CallContext::Cancel ends a call in flight within one poll interval (kCancelPoll).
std::unique_ptr<Snapshotter> NewProxySnapshotter(std::shared_ptr<grpc::Channel> channel,
                                                 ProxyOptions options);

}  // namespace strata
