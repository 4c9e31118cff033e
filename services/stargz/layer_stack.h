// SPDX-License-Identifier: Apache-2.0
//
// What a daemon with lazy layers is made of below its snapshotter: connections, credentials, blobs,
// filler, presenters and layer store, made in that order and ended in the other. Safe from any
// thread once open.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "services/control_source.h"
#include "services/stargz/stargz_config.h"
#include "snapshotters/base/fd_store.h"
#include "snapshotters/stargz/stargz_snapshotter.h"

namespace strata {

class DaemonLayerStack : public LayerStack, public LayerControl {
 public:
  // What Open, and who holds `fds`, make in the root.
  static std::vector<std::string> Folders();

  // Opens everything in the root; `fds` must outlive it. Where layers cannot be presented to the
  // kernel, it opens all the same, says so in the log, and every layer falls back to an ordinary
  // one.
  static StatusOr<std::unique_ptr<DaemonLayerStack>> Open(const StargzConfig& config,
                                                          const LayerRoot& root, FdStore& fds);
};

}  // namespace strata
