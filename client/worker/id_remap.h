// SPDX-License-Identifier: Apache-2.0
//
// userRemapUnsupported: the ids of containers as those that a user may use (subuid(5)). Pure but
// for the files that it is given to read; safe from any thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "client/run/executor.h"
#include "snapshotters/base/status.h"

namespace strata {

struct IdMaps {
  std::vector<IdRange> uids;  // none: no user namespace
  std::vector<IdRange> gids;
};

// "" is no mapping; else USER[:GROUP], of which only the user counts. Reads /etc/passwd,
// /etc/subuid and /etc/subgid. InvalidArgument with the seed's texts.
StatusOr<IdMaps> ReadIdMaps(
    std::string_view specification,
    const std::function<StatusOr<std::string>(const std::string& path)>& read_file);

}  // namespace strata
