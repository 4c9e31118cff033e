// SPDX-License-Identifier: Apache-2.0
//
// Dialling a snapshotter's socket as BuildKit's OCI worker does: the path is looked at once, the
// connection is made in the background, and made again for ever with a growing pause. Safe from any
// thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "snapshotters/base/status.h"

namespace grpc {
class Channel;
}

namespace strata {

struct DialOptions {
  // Pauses between attempts: base, times multiplier, +-jitter, at most max. BuildKit's figures.
  std::chrono::milliseconds backoff_base{1000};
  std::chrono::milliseconds backoff_max{3000};
  // Dial then waits until the server answers, at most this long; 0 does not wait (as the seed).
  // Afterwards: Unavailable that names the path.
  std::chrono::milliseconds wait_for_ready{0};
  // HTTP/2 pings while calls are open; a server that leaves one unanswered for keepalive_timeout
  // fails them. 0: none.
  std::chrono::milliseconds keepalive{0};
  std::chrono::milliseconds keepalive_timeout{5000};
};

// A channel to the unix socket `path`. Errors, with the texts of the seed (worker-parity 3):
//   InvalidArgument  `path` has a "unix://" prefix, or is relative
//   NotFound         nothing is there: snapshotter doesn't exist on "P" (Do not include 'unix://'
//                    prefix): stat P: no such file or directory
//   Unavailable      wait_for_ready has passed
// A regular file, a directory or a dead socket pass, as with the seed: the calls will fail.
StatusOr<std::shared_ptr<grpc::Channel>> Dial(const std::string& path, const DialOptions& options);

}  // namespace strata
