// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 by OpenSSL. Safe from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace strata {

using Sha256Digest = std::array<uint8_t, 32>;

Sha256Digest Sha256(std::string_view bytes);

}  // namespace strata
