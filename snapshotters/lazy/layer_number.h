// SPDX-License-Identifier: Apache-2.0
//
// The numbers of layers, as their folders and mount points are called. Stateless, safe from any
// thread.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <system_error>

namespace strata {

// A number as std::to_string writes it, from 1; nothing for any other name, "007" too.
inline std::optional<uint64_t> ParseLayerNumber(std::string_view name) {
  uint64_t number = 0;
  const char* const end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data(), end, number);
  const bool plain = error == std::errc() && rest == end && name.front() != '0';
  return plain ? std::optional(number) : std::nullopt;
}

}  // namespace strata
