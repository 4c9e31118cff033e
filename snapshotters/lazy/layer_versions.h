// SPDX-License-Identifier: Apache-2.0
//
// The versions of a layer's files (FORMAT.md), and a look at those that are on a disk. Stateless,
// safe from any thread.
#pragma once

#include <cstdint>
#include <string>

#include "snapshotters/base/status.h"

namespace strata {

// Of all that is in the folder of layers: raised with each of the others.
inline constexpr uint32_t kLayersFormat = 1;
inline constexpr uint32_t kChunkTableVersion = 1;
inline constexpr uint32_t kExtentsVersion = 1;
inline constexpr uint32_t kLayerSourceVersion = 1;

// Reads the versions of all layers below `root`, and only them: a daemon may be working on them.
// FailedPrecondition names the first file that this program could not read. Whether a file holds is
// not looked at: one that says no version is passed over.
Status CheckLayerVersions(const std::string& root);

}  // namespace strata
