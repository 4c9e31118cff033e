// SPDX-License-Identifier: Apache-2.0
//
// OpenLayers: all layers that a LayerDirectory has found, opened. Used once, at the start.
#pragma once

#include <memory>
#include <vector>

#include "snapshotters/lazy/image_files.h"
#include "snapshotters/lazy/layer_directory.h"
#include "snapshotters/lazy/layer_image.h"

namespace strata {

// By number. A layer that does not hold is set aside, with a log line; one that cannot be opened
// for another reason (no more descriptors) is left alone, with a log line too. Image files are
// opened by way of `files`.
std::vector<std::shared_ptr<LayerImage>> OpenLayers(LayerDirectory& directory, ImageFiles& files,
                                                    int threads);

}  // namespace strata
