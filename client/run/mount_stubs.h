// SPDX-License-Identifier: Apache-2.0
//
// MountStubs: the empty files and directories that are made in a root to mount on, by the runtime
// or before it, and are no part of what the process did (worker-parity 2.3, point 6). One thread at
// a time.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "client/run/container_root.h"
#include "snapshotters/base/status.h"

namespace strata {

// The directory `path`, with what is missing of its parents, or an empty file in them: for this
// owner. What is there stays as it is. Where the runtime may not, because the container's root owns
// nothing in an image.
Status MakeMountPoint(const ContainerRoot& root, const std::string& path, bool is_file, uid_t uid,
                      gid_t gid);

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
