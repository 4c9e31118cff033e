// SPDX-License-Identifier: Apache-2.0
//
// MountStubs: the empty files and directories that a runtime makes in a root to mount on, which are
// no part of what the process did (worker-parity 2.3, point 6). One thread at a time.
#pragma once

#include <string>
#include <vector>

#include "client/run/container_root.h"

namespace strata {

class MountStubs {
 public:
  // Remembers what of `destinations`, and of the directories that they are in, is not there yet.
  MountStubs(const ContainerRoot& root, const std::vector<std::string>& destinations);

  // Removes what has come into being of that and is still empty; the times of the directories that
  // it was in stay. What cannot be removed stays, too: it is in the way of nobody.
  void Remove(const ContainerRoot& root) const;

 private:
  std::vector<std::string> missing_;  // the deepest first
};

}  // namespace strata
