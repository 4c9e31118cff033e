// SPDX-License-Identifier: Apache-2.0
//
// What this host can do for a snapshotter, tried for real in the root that it would have.
// Stateless.
#pragma once

#include <string>
#include <vector>

#include "client/stratactl/output.h"
#include "snapshotters/base/status.h"

namespace strata {

struct Finding {
  std::string name;
  bool works = false;
  std::string detail;  // what it is good for, or why it does not work
  std::vector<std::string> more;
};

// NotFound: there is no such directory. What the probes make in it, they remove; a root that a
// daemon serves may be probed.
StatusOr<std::vector<Finding>> ProbeHost(const std::string& root);

// A row each; as JSON, a list.
Status ShowProbe(const std::string& root, const Output& output);

}  // namespace strata
