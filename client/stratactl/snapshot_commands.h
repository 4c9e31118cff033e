// SPDX-License-Identifier: Apache-2.0
//
// The commands of stratactl that show snapshots. One thread at a time.
#pragma once

#include <string>
#include <vector>

#include "client/stratactl/node.h"
#include "client/stratactl/output.h"
#include "snapshotters/base/clock.h"
#include "snapshotters/base/status.h"
#include "snapshotters/os/mount_users.h"

namespace strata {

// A row for each snapshot; as JSON, a list.
Status ShowSnapshots(Node& node, bool labels, const Output& output);
// Which is on which, and who has them mounted; as JSON, a list, parents before children.
Status ShowTree(Node& node, const Output& output);
// What they take on disk, the largest first, and all together; as JSON, an object.
Status ShowUsage(Node& node, const Output& output);

// The same for snapshots that have been found already; for tests.
void PrintSnapshots(const std::vector<NodeSnapshot>& snapshots, bool labels, TimeNs now,
                    const Output& output);
void PrintUsage(std::vector<NodeSnapshot> snapshots, const Output& output);

// Who uses what: `users` of a snapshot are those whose mount shows it on top.
struct UsedSnapshot {
  NodeSnapshot snapshot;
  std::vector<MountUser> users;
};
void PrintTree(const std::vector<UsedSnapshot>& snapshots, TimeNs now, const Output& output);

}  // namespace strata
