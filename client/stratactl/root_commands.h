// SPDX-License-Identifier: Apache-2.0
//
// The commands of stratactl that look after a root as a whole. One thread at a time.
#pragma once

#include "client/stratactl/node.h"
#include "client/stratactl/output.h"
#include "snapshotters/base/status.h"

namespace strata {

// The root's file system, and what takes it besides snapshots; as JSON, an object.
Status ShowSpace(Node& node, const Output& output);
// What is wrong, and how it is mended; with `repair` that is done, and looked at again, until
// nothing more can be. FailedPrecondition: something is wrong (still). As JSON, an object.
Status CheckNode(Node& node, bool repair, const Output& output);
Status CleanUp(Node& node, const Output& output);

// For tests.
void PrintSpace(const Node::Description& node, const RootSpace& space, const Output& output);

}  // namespace strata
