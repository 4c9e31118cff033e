// SPDX-License-Identifier: Apache-2.0
//
// Where the TOCs of an image lie whose layers have none of their own (eStargz with external TOC):
// they are the layers of the image <repository>:<tag>-esgztoc. Stateless, safe from any thread.
#pragma once

#include <functional>
#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/image_manifests.h"
#include "snapshotters/registry/reference.h"

namespace strata {

Reference TocImageOf(const Reference& image);

// The layer of the TOC image that holds the TOC of the layer `digest`. FailedPrecondition: the
// reference has no tag. NotFound: no TOC image, or no such layer in it. DataLoss: its manifest.
void FindExternalToc(ImageManifests& manifests, const Reference& image, const std::string& digest,
                     Deadline deadline, std::function<void(StatusOr<ManifestLayer>)> callback);

}  // namespace strata
