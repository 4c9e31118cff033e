// SPDX-License-Identifier: Apache-2.0
//
// One gzip member, by zlib.
#pragma once

#include <zlib.h>

#include <string>
#include <string_view>

namespace strata::testing {

// `header`: what else stands in it; null: nothing.
std::string Gzip(std::string_view bytes, int level = 1, gz_header* header = nullptr);

}  // namespace strata::testing
