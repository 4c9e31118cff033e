// SPDX-License-Identifier: Apache-2.0
//
// What this host can do for a snapshotter, tried for real in the root that it would have.
// Stateless.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

struct Finding {
  std::string name;
  bool works = false;
  std::string detail;  // what it is good for, or why it does not work
};

// NotFound: there is no such directory. What the probes make in it, they remove.
StatusOr<std::vector<Finding>> ProbeHost(const std::string& root);

Status ShowProbe(const std::string& root, bool json, std::ostream& out);

}  // namespace strata
