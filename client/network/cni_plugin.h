// SPDX-License-Identifier: Apache-2.0
//
// Plugins of the Container Network Interface, as programs that are run: what to do in the
// environment, the network on standard input, the result on standard output. Safe from any thread;
// each call blocks its thread.
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <string_view>

#include "client/network/cni_config.h"
#include "snapshotters/base/status.h"

namespace strata {

inline constexpr std::string_view kCniInterface = "eth0";

struct CniAttachment {
  std::string container_id;
  std::string netns;        // path; "": it is gone
  std::string args;         // CNI_ARGS, "A=1;B=2"
  std::string plugin_path;  // folders of plugins, ':' between them
  // The network namespace in which the plugins run; "": this process's.
  std::string outer_netns;
};

struct CniLimits {
  std::chrono::steady_clock::time_point deadline;
  // Once it is true only a short time is left. May be null; must outlive the call.
  const std::atomic<bool>* stop = nullptr;
};

// ADD of all plugins in their order, each with the result of the one before; the last one's result.
// After a failure nothing is undone: CniDel is for that. Unavailable `plugin "x": ...` in the
// plugin's own words; DeadlineExceeded: it was killed, and all that it had started.
StatusOr<std::string> CniAdd(const CniConfig& config, const CniAttachment& attachment,
                             const CniLimits& limits);

// DEL of all plugins in the opposite order, going on over failures: the first one is returned.
// `result`: what CniAdd returned, "" if it did not.
Status CniDel(const CniConfig& config, const CniAttachment& attachment, std::string_view result,
              const CniLimits& limits);

}  // namespace strata
