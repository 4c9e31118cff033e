// SPDX-License-Identifier: Apache-2.0
//
// The commands of stratactl that ask a running snapshotter. Each prints to `out`, for people or as
// JSON; one thread at a time.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <ostream>

#include "snapshotters/base/status.h"

namespace grpc {
class Channel;
}

namespace strata {

struct ControlCommand {
  std::shared_ptr<grpc::Channel> channel;
  std::ostream& out;
  bool json = false;
  size_t columns = 0;  // see Terminal
};

// The lazy layers, and those that could not be: a row each; as JSON, a list.
Status ShowLayers(const ControlCommand& command);
// One row each; as JSON, an object.
Status ShowCounters(const ControlCommand& command);
// Unavailable when it does not serve.
Status ShowHealth(const ControlCommand& command);
// Has all layers completed, and says how far that is as it goes on: a line, or a JSON object, about
// once a second. OK when all are complete. DeadlineExceeded when they are not after `timeout` (0:
// none).
Status DrainLayers(const ControlCommand& command, std::chrono::seconds timeout);

}  // namespace strata
