// SPDX-License-Identifier: Apache-2.0
//
// What stratactl prints for people. Stateless, safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace strata {

// Rows under a header, in columns that are as wide as they have to be. Every row has as many cells
// as the header. Cells may come from anywhere: see Printable. With `columns` (0: no limit) the
// longest cells are shortened in the middle until the lines fit a terminal of that width.
void PrintTable(std::ostream& out, const std::vector<std::string>& header,
                const std::vector<std::vector<std::string>>& rows, size_t columns = 0);

// `text` with a '?' for all that a terminal would not show but obey (control characters, also
// those of UTF-8, and changes of the direction of writing), and for what is not UTF-8.
std::string Printable(std::string_view text);

// At most `width` characters (of printable text), the middle replaced by "...".
std::string Shortened(std::string_view text, size_t width);

// "512 B", "1.5 MiB".
std::string ShowBytes(uint64_t bytes);

// "45s", "3m20s", "2h5m", "3d4h".
std::string ShowSeconds(uint64_t seconds);

}  // namespace strata
