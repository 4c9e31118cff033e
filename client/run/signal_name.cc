// SPDX-License-Identifier: Apache-2.0
#include "client/run/signal_name.h"

#include <signal.h>

#include <cctype>
#include <charconv>
#include <optional>
#include <string>

#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

std::optional<int> Number(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && number > 0 && number < NSIG ? std::optional(number) : std::nullopt;
}

std::optional<int> Named(std::string_view name) {
  if (name.starts_with("RTMIN")) {
    name.remove_prefix(5);
    if (name.empty()) {
      return SIGRTMIN;
    }
    const std::optional<int> offset = name[0] == '+' ? Number(name.substr(1)) : std::nullopt;
    return offset.has_value() && SIGRTMIN + *offset <= SIGRTMAX ? std::optional(SIGRTMIN + *offset)
                                                                : std::nullopt;
  }
  for (int signal = 1; signal < NSIG; ++signal) {
    const char* known = ::sigabbrev_np(signal);
    if (known != nullptr && name == known) {
      return signal;
    }
  }
  return std::nullopt;
}

}  // namespace

StatusOr<int> ParseSignal(std::string_view text) {
  std::string name;
  for (const char c : text) {
    name += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  std::string_view rest = name;
  if (rest.starts_with("SIG")) {
    rest.remove_prefix(3);
  }
  std::optional<int> signal = Number(text);
  if (!signal.has_value()) {
    signal = Named(rest);
  }
  if (!signal.has_value()) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "signal " + ShowName(text) + ": expected a name or a number from 1 to 64");
  }
  return *signal;
}

}  // namespace strata
