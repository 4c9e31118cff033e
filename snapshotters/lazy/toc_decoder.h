// SPDX-License-Identifier: Apache-2.0
//
// From the compressed TOC of a layer to its JSON, checked against what the manifest pins.
// Stateless, safe from any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/footer.h"
#include "snapshotters/lazy/toc.h"
#include "snapshotters/lazy/toc_pin.h"

namespace strata {

// With neither, a layer whose TOC is not pinned is refused, and a pin that does not hold always is.
struct VerifyPolicy {
  // A layer without a pin is accepted; one with a pin is still held to it.
  bool allow_unpinned = false;
  // Pins are not looked at (stargz-snapshotter's disable_verification).
  bool disabled = false;
};

// The JSON, with room behind it as ParseToc needs. `compressed` is footer.toc of the blob, or for
// kExternalToc the whole layer of the TOC image. FailedPrecondition: no pin and the policy wants
// one. DataLoss: pin, compression or tar do not hold, or more than limits.toc_bytes.
StatusOr<std::string> DecodeToc(const Footer& footer, std::span<const uint8_t> compressed,
                                const TocPin& pin, const VerifyPolicy& policy,
                                const TocLimits& limits);

}  // namespace strata
