// SPDX-License-Identifier: Apache-2.0
//
// What stratactl prints for people. Stateless, safe from any thread.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace strata {

// Rows under a header, in columns that are as wide as they have to be. Every row has as many cells
// as the header. Control characters in cells, which may come from anywhere, become '?'.
void PrintTable(std::ostream& out, const std::vector<std::string>& header,
                const std::vector<std::vector<std::string>>& rows);

// `text` without control characters.
std::string Printable(std::string_view text);

// "512 B", "1.5 MiB".
std::string ShowBytes(uint64_t bytes);

// "45s", "3m20s", "2h5m".
std::string ShowSeconds(uint64_t seconds);

}  // namespace strata
