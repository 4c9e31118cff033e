// SPDX-License-Identifier: Apache-2.0
//
// Names that nobody else has. Stateless, safe from any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"

namespace strata {

inline constexpr size_t kRandomNameLength = 25;
// What they are made of.
inline constexpr std::string_view kRandomNameLetters = "0123456789abcdefghijklmnopqrstuvwxyz";

// kRandomNameLength letters and digits, each as likely as the others.
StatusOr<std::string> RandomName();

}  // namespace strata
