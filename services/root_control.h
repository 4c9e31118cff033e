// SPDX-License-Identifier: Apache-2.0
//
// RootControl: what the control service shows of a daemon of any kind: its root, and the lazy
// layers if the kind has any. Safe from any thread.
#pragma once

#include <string>
#include <vector>

#include "services/control_source.h"
#include "snapshotters/core/tree_snapshotter.h"

namespace strata {

class RootControl final : public ControlSource {
 public:
  // `snapshotter`, which is open on `root`, and `layers` must outlive this; null: the kind has no
  // lazy layers, and the lists of them are empty.
  RootControl(std::string kind, std::string root, TreeSnapshotter& snapshotter,
              LayerControl* layers);

  std::vector<ControlLayer> ListLayers() override;
  std::vector<ControlCounter> Counters() override;
  void FetchAll() override;
  ControlDrain DrainState() override;
  ControlDescription Describe() override;
  StatusOr<std::vector<ControlSnapshot>> Snapshots(CallContext& call, SnapshotId after) override;
  StatusOr<RootCheck> Check(CallContext& call) override;
  StatusOr<RootSpace> Space(CallContext& call) override;

 private:
  const std::string kind_;
  const std::string root_;  // without symlinks
  TreeSnapshotter& snapshotter_;
  LayerControl* const layers_;
};

}  // namespace strata
