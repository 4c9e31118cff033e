// SPDX-License-Identifier: Apache-2.0
//
// DaemonPresenters: what a daemon with lazy layers shows them by: EROFS where it may and can, FUSE
// for what is left. Which it is, and why, is said in the log. Safe from any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "services/control_source.h"
#include "services/stargz/stargz_config.h"
#include "snapshotters/base/fd_store.h"
#include "snapshotters/base/status.h"
#include "snapshotters/lazy/erofs_presenter.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/fuse_presenter.h"
#include "snapshotters/lazy/layer_presenters.h"
#include "snapshotters/lazy/space_reserve.h"

namespace strata {

class DaemonPresenters {
 public:
  // What they make in the root.
  static std::vector<std::string> Folders();

  // All but `config` must outlive this. Where there is neither EROFS nor FUSE it starts all the
  // same, says so in the log, and shows nothing.
  static StatusOr<std::unique_ptr<DaemonPresenters>> Start(const StargzConfig& config,
                                                           const std::string& root, FdStore& fds,
                                                           Filler& filler, SpaceReserve& reserve);

  // Valid as long as this.
  [[nodiscard]] LayerPresenters presenters() const;
  [[nodiscard]] std::vector<ControlCounter> Counters() const;

 private:
  DaemonPresenters() = default;
  void StartErofs(const StargzConfig& config, const std::string& root, FdStore& fds, Filler& filler,
                  SpaceReserve& reserve);
  Status StartFuse(const StargzConfig& config, const std::string& root, FdStore& fds,
                   Filler& filler);
  void Say(const StargzConfig& config, bool has_store) const;

  std::unique_ptr<ErofsPresenter> erofs_;  // null: not here
  bool show_erofs_ = false;
  std::string reason_;  // why layers are shown by EROFS, or are not

  std::unique_ptr<FusePresenter> fuse_;  // null: not here
  std::unique_ptr<Presenter> none_;      // in its place
};

}  // namespace strata
