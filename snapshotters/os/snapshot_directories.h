// SPDX-License-Identifier: Apache-2.0
//
// SnapshotDirectories: everything under snapshots/ and trash/ of one root: new directories, old
// ones, and the sweep of what a crash left. Safe from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/os/reaper.h"
#include "snapshotters/os/spare_directories.h"
#include "snapshotters/os/state_root.h"

namespace strata {

class SnapshotDirectories {
 public:
  // `root` and `store` must outlive this. Starts the sweep in the background.
  SnapshotDirectories(const StateRoot& root, MetaStore& store,
                      std::vector<SpareDirectories::Shape> shapes, Reaper::Options reaper = {});
  ~SnapshotDirectories();

  SnapshotDirectories(const SnapshotDirectories&) = delete;
  SnapshotDirectories& operator=(const SnapshotDirectories&) = delete;

  // A new directory of that shape, durable; see SpareDirectories::Take.
  StatusOr<SnapshotId> Take(size_t shape) { return spares_.Take(shape); }

  // The directory may go, in the background.
  void Discard(SnapshotId id) { reaper_.Discard(id); }
  void Reclaim() { reaper_.Kick(); }

  // "<root>/snapshots/<id>".
  [[nodiscard]] std::string PathOf(SnapshotId id) const;

  // snapshots/<id>, or snapshots/<id>/<folder>, opened for reading.
  [[nodiscard]] StatusOr<UniqueFd> Open(SnapshotId id, std::string_view folder = {}) const;

  // What the sweep found; valid once it has ended.
  struct Swept {
    std::vector<SnapshotId> orphans;   // directories without a record: removed
    std::vector<SnapshotId> lost;      // records without a directory: reported
    std::vector<std::string> foreign;  // names that are not numbers: left alone
    Status status;
  };
  const Swept& WaitSwept();

 private:
  void Sweep(MetaStore& store, SnapshotId first_new);

  const StateRoot& root_;
  Reaper reaper_;
  SpareDirectories spares_;
  Swept swept_;
  std::thread sweeper_;  // last: it uses all of the above
};

}  // namespace strata
