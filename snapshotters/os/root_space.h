// SPDX-License-Identifier: Apache-2.0
//
// What takes the file system of a root, besides its snapshots. Stateless, safe from any thread.
#pragma once

#include <cstdint>
#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

struct RootSpace {
  std::string file_system;  // "ext4"; in digits when its name is not known here
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;    // for those without privileges, as df(1) has it
  uint64_t total_inodes = 0;  // 0: the file system does not count them
  uint64_t free_inodes = 0;
  uint64_t trash_entries = 0;  // removed snapshots that are still on disk
  uint64_t trash_bytes = 0;
  uint64_t layers = 0;  // lazy ones
  uint64_t layer_bytes = 0;
  uint64_t reserve_bytes = 0;  // set aside for lazy layers
  uint64_t metadata_bytes = 0;
};

// Reads only; what vanishes meanwhile is left out. Cancelled when `call` is.
StatusOr<RootSpace> SpaceOf(const CallContext& call, const std::string& root);

}  // namespace strata
