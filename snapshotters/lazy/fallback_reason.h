// SPDX-License-Identifier: Apache-2.0
//
// Why a layer is not served lazily: what an operator sees. A reason travels with a Status as a
// payload where the code alone does not tell. Stateless, safe from any thread.
#pragma once

#include <string_view>

#include "snapshotters/base/status.h"

namespace strata {

enum class FallbackReason {
  kNone,
  kNotLazy,      // an ordinary layer
  kNoPin,        // no digest in the manifest that pins its TOC
  kBadLayer,     // footer, TOC or pin do not hold
  kRegistry,     // the registry cannot be reached, or has it not
  kCredentials,  // 401, 403
  kTimeout,      // not resolved in time
  kDisk,         // full, or it does not work
  kLimits,       // beyond what is configured
  kPresenter,    // could not be mounted
};

std::string_view FallbackReasonName(FallbackReason reason);  // "not-lazy", "no-pin", ...

// `status` with the reason; OK stays as it is.
Status WithReason(Status status, FallbackReason reason);

// The reason that was given, else the one that the code stands for.
FallbackReason ReasonOf(const Status& status);

}  // namespace strata
