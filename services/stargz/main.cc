// SPDX-License-Identifier: Apache-2.0
//
// strata-stargz: the snapshotter of lazy layers as a process.
#include <memory>
#include <string>
#include <vector>

#include "services/daemon.h"
#include "services/stargz/layer_stack.h"
#include "services/stargz/stargz_config.h"
#include "snapshotters/lazy/event_journal.h"
#include "snapshotters/lazy/layer_versions.h"
#include "snapshotters/os/state_root.h"
#include "snapshotters/stargz/stargz_snapshotter.h"

int main(int argc, char** argv) {
  strata::StargzConfig stargz;
  strata::DaemonLayerStack* stack = nullptr;  // the snapshotter's
  strata::FdStore* store = nullptr;           // the daemon's; there before `open_layers` is called
  const auto open_layers =
      [&stargz, &stack, &store](
          const strata::LayerRoot& root) -> strata::StatusOr<std::unique_ptr<strata::LayerStack>> {
    STRATA_ASSIGN_OR_RETURN(auto opened, strata::DaemonLayerStack::Open(stargz, root, *store));
    stack = opened.get();
    return opened;
  };
  const auto open = [&stargz, &open_layers, &store](const strata::DaemonConfig& config,
                                                    strata::FdStore& fds) {
    store = &fds;
    for (const std::string& note : stargz.notes) {
      strata::LogWarn("a setting of stargz-snapshotter has no effect", {{"setting", note}});
    }
    return strata::StargzSnapshotter::Create({.root = config.root,
                                              .allow_volatile = config.allow_volatile_root,
                                              .anchor_dir = config.anchor_dir,
                                              .overlay = stargz.overlay,
                                              .sync_at_commit = config.sync_at_commit,
                                              .reaper = {.synchronous = config.synchronous_removal},
                                              .layer_folders = strata::DaemonLayerStack::Folders(),
                                              .open_layers = open_layers});
  };
  const auto check = [](const strata::DaemonConfig& config) -> strata::Status {
    STRATA_RETURN_IF_ERROR(
        strata::StateRoot::Check({.path = config.root,
                                  .kind = "stargz",
                                  .allow_volatile = config.allow_volatile_root,
                                  .anchor_dir = config.anchor_dir,
                                  .kind_folders = strata::DaemonLayerStack::Folders()}));
    return strata::CheckLayerVersions(config.root);
  };
  std::vector<strata::StateFormat> formats = strata::CommonFormats();
  formats.push_back({.name = "layers", .current = strata::kLayersFormat});
  formats.push_back({.name = "journal",
                     .oldest = strata::EventJournal::kVersion,
                     .current = strata::EventJournal::kVersion});
  return strata::DaemonMain({.name = "stargz",
                             .open = open,
                             .check_root = strata::StateRoot::CheckPath,
                             .check = check,
                             .formats = formats,
                             .settings = strata::StargzSettings(&stargz),
                             .remote = true,
                             .control = [&stack]() -> strata::LayerControl& { return *stack; }},
                            argc, argv);
}
