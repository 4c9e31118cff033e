// SPDX-License-Identifier: Apache-2.0
//
// LazyLabels: what a Prepare tells a snapshotter that may have a layer lazily (lazy-layers.md 2).
// Pure, safe from any thread.
#pragma once

#include <span>
#include <string>

#include "client/image/image_manifest.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

// For the first of `layers`, which are that one and those above it. `target`: the name to commit
// it under. Labels that containerd would refuse for their length are cut or left out.
Labels LazyLabels(std::span<const ImageLayer> layers, const std::string& reference,
                  const std::string& manifest_digest, const std::string& target);

}  // namespace strata
