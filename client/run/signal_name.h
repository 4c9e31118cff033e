// SPDX-License-Identifier: Apache-2.0
//
// Signals by name. Stateless, safe from any thread.
#pragma once

#include <string_view>

#include "snapshotters/base/status.h"

namespace strata {

// "SIGTERM", "term", "15", "SIGRTMIN+3" as images and command lines say it. InvalidArgument for
// anything else.
StatusOr<int> ParseSignal(std::string_view text);

}  // namespace strata
