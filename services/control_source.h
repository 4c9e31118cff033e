// SPDX-License-Identifier: Apache-2.0
//
// ControlSource: what the control service shows of a snapshotter, and LayerControl, the part of it
// that kinds with lazy layers give. Safe from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/root_check.h"
#include "snapshotters/os/root_space.h"

namespace strata {

// See strata/control/v1/control.proto.
struct ControlLayer {
  uint64_t number = 0;
  std::string reference;
  std::string digest;
  std::string reason;
  std::string detail;
  uint64_t blob_bytes = 0;
  uint64_t chunks = 0;
  uint64_t present_chunks = 0;
  uint64_t allocated_bytes = 0;
  std::string presenter;
  bool disk_full = false;
};

struct ControlCounter {
  std::string name;
  uint64_t value = 0;
};

struct ControlDrain {
  struct Failed {
    uint64_t number = 0;
    std::string reference;
    std::string detail;
  };
  uint64_t layers = 0;
  uint64_t layers_left = 0;
  uint64_t bytes_left = 0;
  std::vector<Failed> failed;
};

class LayerControl {
 public:
  virtual ~LayerControl() = default;
  // May look at files, but asks no network.
  virtual std::vector<ControlLayer> ListLayers() = 0;
  virtual std::vector<ControlCounter> Counters() = 0;
  // Has all fetched that is missing of any layer; what has failed is tried again. Returns at once.
  virtual void FetchAll() = 0;
  // How far that is.
  virtual ControlDrain DrainState() = 0;
};

struct ControlDescription {
  std::string kind;
  std::string root;
  std::string version;
  int64_t pid = 0;
};

struct ControlSnapshot {
  SnapshotId id = 0;
  SnapshotInfo info;
  StatusOr<Usage> usage = Usage{};
};

class ControlSource : public LayerControl {
 public:
  virtual ControlDescription Describe() = 0;
  // The snapshots with ids above `after`, by ascending id, as many as fit a message and are
  // measured in about a second; none: there are no more. Usage of actives is walked.
  virtual StatusOr<std::vector<ControlSnapshot>> Snapshots(CallContext& call, SnapshotId after) = 0;
  // Changes nothing.
  virtual StatusOr<RootCheck> Check(CallContext& call) = 0;
  virtual StatusOr<RootSpace> Space(CallContext& call) = 0;
};

}  // namespace strata
