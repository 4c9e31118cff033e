// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string>

#include "snapshotters/base/file_at.h"
#include "snapshotters/os/parent_chain.h"
#include "snapshotters/os/root_check.h"
#include "snapshotters/os/tree_remove.h"

namespace strata {
namespace {

Status Changed(std::string_view what) {
  return MakeStatus(StatusCode::kFailedPrecondition, what);
}

// As the daemon removes a snapshot: what is in snapshots/ is whole at any time.
Status RemoveDirectory(const StateRoot& root, SnapshotId id) {
  const std::string name = std::to_string(id);
  STRATA_RETURN_IF_ERROR(RemoveTree(root.trash_fd(), name));  // of the same number, half removed
  if (::renameat(root.snapshots_fd(), name.c_str(), root.trash_fd(), name.c_str()) != 0) {
    return ErrnoStatus(errno, "move 'snapshots/" + name + "' to 'trash'");
  }
  return RemoveTree(root.trash_fd(), name);
}

// The record that the finding is of, as it is now.
StatusOr<SnapshotRecord> FindAgain(MetaTransaction& txn, const RootFinding& finding) {
  STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> record, txn.Find(finding.name));
  if (!record.has_value() || record->id != finding.id) {
    return Changed("snapshot " + ShowName(finding.name) + " is not there any more");
  }
  return *record;
}

Status RemoveRecord(MetaStore& store, const RootFinding& finding) {
  return store.Mutate([&finding](MetaTransaction& txn) -> Status {
    STRATA_ASSIGN_OR_RETURN(const SnapshotRecord record, FindAgain(txn, finding));
    STRATA_ASSIGN_OR_RETURN(const bool has_children, txn.HasChildren(record.id));
    return has_children ? Changed("others are on snapshot " + ShowName(finding.name))
                        : txn.Erase(record);
  });
}

Status RewriteChain(MetaStore& store, const RootFinding& finding) {
  return store.Mutate([&finding](MetaTransaction& txn) -> Status {
    STRATA_ASSIGN_OR_RETURN(SnapshotRecord record, FindAgain(txn, finding));
    STRATA_ASSIGN_OR_RETURN(const ParentChain right, ChainOf(record, [&txn](std::string_view name) {
                              return txn.Find(name);
                            }));
    if (!right.lost.empty()) {
      return Changed(right.lost);
    }
    record.chain = right.ids;
    return txn.Put(record);
  });
}

Status RemoveMountPoint(const StateRoot& root, const std::string& path) {
  // rmdir(2): a directory with something in it, or mounted on it, stays.
  return ::unlinkat(root.fd(), path.c_str(), AT_REMOVEDIR) == 0
             ? OkStatus()
             : ErrnoStatus(errno, "remove '" + path + "'");
}

}  // namespace

std::string_view ProblemName(RootProblem problem) {
  switch (problem) {
    case RootProblem::kNoRecord:
      return "no-record";
    case RootProblem::kNoDirectory:
      return "no-directory";
    case RootProblem::kWrongParent:
      return "wrong-parent";
    case RootProblem::kLostParent:
      return "lost-parent";
    case RootProblem::kMounted:
      return "mounted";
    case RootProblem::kForeign:
      return "foreign";
    case RootProblem::kTrash:
      return "trash";
    case RootProblem::kLostLayer:
      return "lost-layer";
    case RootProblem::kNoLayer:
      return "no-layer";
  }
  return "";
}

Status RepairRoot(const StateRoot& root, MetaStore& store, const RootFinding& finding) {
  if (!finding.repairable) {
    return Changed("'" + finding.path + "' is nothing that is repaired");
  }
  switch (finding.problem) {
    case RootProblem::kNoRecord:
      return RemoveDirectory(root, finding.id);
    case RootProblem::kNoDirectory:
      return RemoveRecord(store, finding);
    case RootProblem::kWrongParent:
      return RewriteChain(store, finding);
    case RootProblem::kTrash:
      return RemoveTree(root.trash_fd(), finding.path.substr(finding.path.find('/') + 1));
    case RootProblem::kNoLayer:
      return RemoveMountPoint(root, finding.path);
    case RootProblem::kLostParent:
    case RootProblem::kMounted:
    case RootProblem::kForeign:
    case RootProblem::kLostLayer:
      break;
  }
  return Changed("'" + finding.path + "' is nothing that is repaired");
}

}  // namespace strata
