// SPDX-License-Identifier: Apache-2.0
//
// Who a container's process runs as: numbers for the names of the image's own passwd and group
// files (worker-parity 2.3, point 7). Stateless, safe from any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "client/run/container_root.h"
#include "snapshotters/base/status.h"

namespace strata {

struct ProcessUser {
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::vector<uint32_t> additional_gids;  // the primary one first

  bool operator==(const ProcessUser&) const = default;
};

// `user` is "", "uid[:gid]" or "name[:group]"; "" is root, whatever the files say. A number that no
// line has stands for itself. NotFound "unable to find user X: no matching entries in passwd file",
// or "... group X: ... group file"; InvalidArgument for numbers beyond 2147483647.
StatusOr<ProcessUser> ResolveUser(std::string_view user, std::string_view passwd,
                                  std::string_view group);

// With the files of `root`, which are not read for "uid:gid".
StatusOr<ProcessUser> LookUpUser(const ContainerRoot& root, std::string_view user);

}  // namespace strata
