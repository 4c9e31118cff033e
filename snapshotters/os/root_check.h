// SPDX-License-Identifier: Apache-2.0
//
// What is wrong in a root: its records, its directories and the mounts of it, compared; and how
// each of it is mended. Stateless, safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/os/state_root.h"

namespace strata {

enum class RootProblem : uint8_t {
  kNoRecord,     // a directory of snapshots/ without a record
  kNoDirectory,  // a record whose directory is not there, or not what it should be
  kWrongParent,  // the record's chain of layers is not that of its parent
  kLostParent,   // the record's parent has no record, or cannot be one
  kMounted,      // a mount shows a directory that has no record, or that waits in trash/
  kForeign,      // a name that strata does not give
  kTrash,        // removed, and still on disk
  kLostLayer,    // stargz: the lazy layer that the snapshot stands for is not there
  kNoLayer,      // stargz: a mount point of a layer that is not there
};

// "no-record", "no-directory", ...
std::string_view ProblemName(RootProblem problem);

struct RootFinding {
  RootProblem problem = RootProblem::kForeign;
  SnapshotId id = 0;   // 0: of no snapshot
  std::string name;    // of the snapshot
  std::string path;    // below the root
  uint64_t bytes = 0;  // on disk
  std::string detail;
  // What RepairRoot will do, or, if it may not, what can be done.
  std::string repair;
  bool repairable = false;
  // Left as it is, it does no harm: nobody has to do anything.
  bool harmless = false;

  bool operator==(const RootFinding&) const = default;
};

struct RootCheckOptions {
  std::string path;  // of the root, absolute, without symlinks
  std::string kind;
  // A daemon serves the root, and gives numbers from this one on: directories of these are its own
  // business (spares, removals under way), and so is trash/. 0: no daemon runs.
  SnapshotId served_from = 0;
  // Called now and then with what has been looked at.
  std::function<void(size_t records, size_t directories)> progress;
};

struct RootCheck {
  // More than these are not listed.
  static constexpr size_t kMostFindings = 10'000;

  std::vector<RootFinding> findings;
  size_t records = 0;
  size_t directories = 0;
  bool truncated = false;
};

// Reads only, and in pages: no transaction and no lock is held while files are looked at. What came
// or went meanwhile is no finding: each is looked at twice. Memory: the ids. Cancelled when `call`
// is.
StatusOr<RootCheck> CheckRoot(const CallContext& call, MetaStore& store,
                              const RootCheckOptions& options);

// Mends what `finding`, a repairable one of CheckRoot, says, in a root that no daemon serves.
// FailedPrecondition: it is not as it was found, and nothing was changed.
Status RepairRoot(const StateRoot& root, MetaStore& store, const RootFinding& finding);

}  // namespace strata
