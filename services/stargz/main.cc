// SPDX-License-Identifier: Apache-2.0
//
// strata-stargz: the snapshotter of lazy layers as a process.
#include <memory>
#include <string>

#include "services/daemon.h"
#include "services/stargz/layer_stack.h"
#include "services/stargz/stargz_config.h"
#include "snapshotters/stargz/stargz_snapshotter.h"

int main(int argc, char** argv) {
  strata::StargzConfig stargz;
  strata::DaemonLayerStack* stack = nullptr;  // the snapshotter's
  const auto open_layers =
      [&stargz, &stack](
          const strata::LayerRoot& root) -> strata::StatusOr<std::unique_ptr<strata::LayerStack>> {
    STRATA_ASSIGN_OR_RETURN(auto opened, strata::DaemonLayerStack::Open(stargz, root));
    stack = opened.get();
    return opened;
  };
  const auto open = [&stargz, &open_layers](const strata::DaemonConfig& config) {
    for (const std::string& note : stargz.notes) {
      strata::LogWarn("a setting of stargz-snapshotter has no effect", {{"setting", note}});
    }
    return strata::StargzSnapshotter::Create({.root = config.root,
                                              .allow_volatile = config.allow_volatile_root,
                                              .anchor_dir = config.anchor_dir,
                                              .layer_folders = strata::DaemonLayerStack::Folders(),
                                              .open_layers = open_layers});
  };
  return strata::DaemonMain({.name = "stargz",
                             .open = open,
                             .check_root = strata::StateRoot::CheckPath,
                             .settings = strata::StargzSettings(&stargz),
                             .remote = true,
                             .control = [&stack]() -> strata::ControlSource& { return *stack; }},
                            argc, argv);
}
