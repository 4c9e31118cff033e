// SPDX-License-Identifier: Apache-2.0
//
// Node: the root of one daemon as stratactl sees it: by way of the daemon that serves it, or, when
// none does, in its files. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/stratactl/output.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/root_check.h"
#include "snapshotters/os/root_space.h"

namespace grpc {
class Channel;
}

namespace strata {

struct NodeSnapshot {
  SnapshotId id = 0;
  std::string tenant;  // "" for the default one
  SnapshotInfo info;   // with the names that the tenant knows
  Usage usage;
  std::string unmeasured;  // why `usage` is not known; "": it is
};

// One `problem` that this program knows is also in `found.problem`; a newer daemon may have others.
struct NodeFinding {
  std::string problem;
  RootFinding found;
};

struct NodeCheck {
  std::vector<NodeFinding> findings;
  uint64_t records = 0;
  uint64_t directories = 0;
  bool truncated = false;
};

class Node {
 public:
  virtual ~Node() = default;

  struct Description {
    std::string kind;
    std::string root;     // without symlinks
    std::string version;  // "" where no daemon runs
    int64_t pid = 0;      // 0 where no daemon runs
  };
  virtual StatusOr<Description> Describe() = 0;
  // All of them, by ascending id. Actives are walked.
  virtual StatusOr<std::vector<NodeSnapshot>> Snapshots(bool labels, Progress& progress) = 0;
  // Changes nothing.
  virtual StatusOr<NodeCheck> Check(Progress& progress) = 0;
  virtual StatusOr<RootSpace> Space() = 0;
  // FailedPrecondition where no daemon runs.
  virtual Status Cleanup() = 0;
  // FailedPrecondition where a daemon runs.
  virtual Status CanRepair() = 0;
  // Mends what Check found, each by itself: a Status for each. CanRepair is OK.
  virtual StatusOr<std::vector<Status>> Repair(const std::vector<RootFinding>& findings) = 0;
};

std::unique_ptr<Node> NewServedNode(std::shared_ptr<grpc::Channel> channel);

// FailedPrecondition: a daemon serves the root, or it is none. DataLoss: its metadata store cannot
// be read. Nothing of the root is changed, by this and by all calls but Repair.
StatusOr<std::unique_ptr<Node>> OpenStoppedNode(const std::string& root);

// Divides what a store calls a tenant's snapshot into tenant and name.
void TakeTenant(NodeSnapshot& snapshot);

}  // namespace strata
