// SPDX-License-Identifier: Apache-2.0
//
// The file `formats` of a root (snapshotters/core/FORMAT.md): what a daemon that runs, or ran, has
// left its state in, so that another version can tell before it takes over. Stateless.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

// One format: what this program writes, and the oldest that it reads.
struct StateFormat {
  std::string name;  // "layers": a-z
  uint32_t oldest = 1;
  uint32_t current = 1;
};

// What every kind has: the root and its metadata store.
std::vector<StateFormat> CommonFormats();

// Says in the root that this program has taken over. Writes only when that changes something.
Status PublishFormats(const std::string& root, const std::vector<StateFormat>& formats);

// OK when all that `formats` in the root names can be read by a program of these; also without the
// file: whoever was there before it existed had the first version of everything.
// FailedPrecondition: not, and why.
Status CheckFormats(const std::string& root, const std::vector<StateFormat>& formats);

}  // namespace strata
