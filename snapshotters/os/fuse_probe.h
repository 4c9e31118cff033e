// SPDX-License-Identifier: Apache-2.0
//
// What the kernel's FUSE offers, asked of itself. Stateless, safe from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

struct FuseOffer {
  uint32_t major = 0;
  uint32_t minor = 0;
  // Of those that a file system of layers has use for: "splice", "readdirplus", "resend", ...
  std::vector<std::string> features;
};

// Mounts a file system of FUSE in `directory` (and takes it away again) and reads what the kernel
// says about itself in its first request. FailedPrecondition: the message says what failed.
StatusOr<FuseOffer> ProbeFuse(const std::string& directory);

}  // namespace strata
