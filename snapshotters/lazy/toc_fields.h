// SPDX-License-Identifier: Apache-2.0
//
// The texts inside a TOC entry: names, times, base64. Stateless, safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"

namespace strata {

struct TocTime {
  int64_t seconds = 0;  // since 1970, may be negative
  uint32_t nanoseconds = 0;
  friend bool operator==(const TocTime&, const TocTime&) = default;
};

// RFC 3339 with any fraction, which is cut at nanoseconds; years 0 to 9999.
std::optional<TocTime> ParseRfc3339(std::string_view text);

// Appends what `text` (RFC 4648, padded) stands for. False: it is no base64; `out` is then open.
bool AppendBase64(std::string_view text, std::string& out);

// `name` without leading and doubled slashes, "." and a trailing slash, made in `scratch`.
// DataLoss: "..", NUL, or longer than the limits.
StatusOr<std::string_view> CleanName(std::string_view name, size_t most_bytes,
                                     size_t most_component_bytes, std::string& scratch);

// For messages: at most some bytes of it, nothing that a terminal would obey.
std::string Printable(std::string_view name);

}  // namespace strata
