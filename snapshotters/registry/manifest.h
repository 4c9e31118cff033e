// SPDX-License-Identifier: Apache-2.0
//
// The manifest of an image, as far as its layers go. Pure, safe from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

struct ManifestLayer {
  std::string digest;
  uint64_t size = 0;
  std::map<std::string, std::string> annotations;
};

// The layers of an OCI image manifest or a Docker one of schema 2. DataLoss: it is none, or a
// digest or a size in it is not valid.
StatusOr<std::vector<ManifestLayer>> ParseManifestLayers(std::string_view json);

}  // namespace strata
