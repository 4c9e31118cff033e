// SPDX-License-Identifier: Apache-2.0
#include "client/worker/gc_policy.h"

#include <sys/statvfs.h>

#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <utility>

#include "snapshotters/base/log.h"

namespace strata {
namespace {

// The seed's figures.
constexpr int64_t kBytesWithoutAnswer = 2'000'000'000;
constexpr int64_t kBytesPerStep = 1'000'000'000;
constexpr int64_t kGibibyte = int64_t{1} << 30;
constexpr int64_t kCacheBytes = 512'000'000;
constexpr std::chrono::hours kCacheKept{48};
constexpr std::chrono::hours kOthersKept{60 * 24};

Status Bad(const std::string& message) {
  return MakeStatus(StatusCode::kInvalidArgument, message);
}

// A value that comes from a file may still have its quotes.
std::string_view WithoutQuotes(std::string_view text) {
  if (text.size() >= 2 && (text.front() == '"' || text.front() == '\'') &&
      text.back() == text.front()) {
    return text.substr(1, text.size() - 2);
  }
  return text;
}

// In the words of Go's strconv, which the seed shows.
StatusOr<int64_t> WholeNumber(std::string_view text) {
  const std::string_view digits = text.starts_with('+') ? text.substr(1) : text;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  const std::string what = "strconv.ParseInt: parsing \"" + std::string(text) + "\": ";
  if (error == std::errc::result_out_of_range) {
    return Bad(what + "value out of range");
  }
  if (error != std::errc() || end != digits.data() + digits.size()) {
    return Bad(what + "invalid syntax");
  }
  return number;
}

// Digits with at most one point among them: 0 or more and finite.
std::optional<double> Decimal(std::string_view text) {
  if (text.empty() || text.find_first_not_of("0123456789.") != std::string_view::npos ||
      text.find_first_of("0123456789") == std::string_view::npos ||
      text.find('.') != text.rfind('.')) {
    return std::nullopt;
  }
  const std::string copy(text);
  return std::strtod(copy.c_str(), nullptr);
}

// "", "b", or k, m, g, t or p alone, with "b" or with "ib": all of them powers of 1,024.
std::optional<double> Unit(std::string_view suffix) {
  std::string lower;
  for (const char letter : suffix) {
    lower += static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  }
  if (lower.empty() || lower == "b") {
    return 1;
  }
  const size_t power = std::string_view("kmgtp").find(lower.front());
  const std::string_view rest = std::string_view(lower).substr(1);
  if (power == std::string_view::npos || (!rest.empty() && rest != "b" && rest != "ib")) {
    return std::nullopt;
  }
  double unit = 1024;
  for (size_t i = 0; i < power; ++i) {
    unit *= 1024;
  }
  return unit;
}

std::optional<int64_t> SizeInBytes(std::string_view text) {
  const size_t last = text.find_last_of("0123456789. ");
  if (last == std::string_view::npos) {
    return std::nullopt;
  }
  const std::optional<double> number = Decimal(text.substr(0, text[last] == ' ' ? last : last + 1));
  const std::optional<double> unit = Unit(text.substr(last + 1));
  constexpr double kLargest = 9.2e18;  // below 2^63
  if (!number.has_value() || !unit.has_value() || *number * *unit > kLargest) {
    return std::nullopt;
  }
  return static_cast<int64_t>(*number * *unit);
}

// As Go's time.ParseDuration: numbers with units, one behind the other.
std::optional<double> GoDurationSeconds(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, double>, 8> kUnits = {{{"ns", 1e-9},
                                                                          {"us", 1e-6},
                                                                          {"\u00b5s", 1e-6},
                                                                          {"\u03bcs", 1e-6},
                                                                          {"ms", 1e-3},
                                                                          {"s", 1},
                                                                          {"m", 60},
                                                                          {"h", 3600}}};
  if (text == "0") {
    return 0;
  }
  double total = 0;
  bool any = false;
  while (!text.empty()) {
    const size_t digits = text.find_first_not_of("0123456789.");
    if (digits == std::string_view::npos) {
      return std::nullopt;
    }
    const std::optional<double> number = Decimal(text.substr(0, digits));
    text.remove_prefix(digits);
    const std::string_view name = text.substr(0, text.find_first_of("0123456789."));
    std::optional<double> unit;
    for (const auto& [known, seconds] : kUnits) {
      unit = known == name ? seconds : unit;
    }
    if (!number.has_value() || !unit.has_value()) {
      return std::nullopt;
    }
    text.remove_prefix(name.size());
    total += *number * *unit;
    any = true;
  }
  return any ? std::optional<double>(total) : std::nullopt;
}

}  // namespace

int64_t DiskSpace::AsBytes(const std::string& root) const {
  if (bytes != 0 || percentage == 0) {
    return bytes;
  }
  struct statvfs disk {};
  if (::statvfs(root.c_str(), &disk) != 0) {
    LogWarn("failed to get disk size: " +
            std::string(StatusMessage(ErrnoStatus(errno, "statfs '" + root + "'"))));
    return kBytesWithoutAnswer;
  }
  const auto size = static_cast<double>(disk.f_frsize) * static_cast<double>(disk.f_blocks);
  const auto share = static_cast<int64_t>(size / 100 * static_cast<double>(percentage));
  return (share / kGibibyte + 1) * kBytesPerStep;
}

StatusOr<DiskSpace> ParseDiskSpace(std::string_view text) {
  const std::string_view bare = WithoutQuotes(text);
  if (bare.empty()) {
    return DiskSpace{};
  }
  if (bare.ends_with('%')) {
    STRATA_ASSIGN_OR_RETURN(const int64_t percentage, WholeNumber(bare.substr(0, bare.size() - 1)));
    constexpr int64_t kMostPercent = 1'000'000;
    if (percentage < 0 || percentage > kMostPercent) {
      return Bad("invalid disk space " + std::string(bare));
    }
    return DiskSpace{.percentage = percentage};
  }
  const std::optional<int64_t> bytes = SizeInBytes(bare);
  if (!bytes.has_value()) {
    return Bad("invalid disk space " + std::string(bare));
  }
  return DiskSpace{.bytes = *bytes};
}

StatusOr<std::chrono::seconds> ParseKeepDuration(std::string_view text) {
  const std::string_view bare = WithoutQuotes(text);
  if (bare.empty()) {
    return std::chrono::seconds(0);
  }
  // time.Duration of the seed has nanoseconds in 63 bits: 292 years.
  constexpr int64_t kMostSeconds = 9'223'372'036;
  if (const std::optional<double> seconds = GoDurationSeconds(bare);
      seconds.has_value() && *seconds <= static_cast<double>(kMostSeconds)) {
    return std::chrono::seconds(static_cast<int64_t>(*seconds));
  }
  if (const auto seconds = WholeNumber(bare);
      seconds.ok() && *seconds >= 0 && *seconds <= kMostSeconds) {
    return std::chrono::seconds(*seconds);
  }
  return Bad("invalid duration " + std::string(text));
}

std::vector<GcRule> DefaultGcPolicy(int64_t keep_bytes) {
  return {
      {.keep_bytes = kCacheBytes,
       .keep_duration = kCacheKept,
       .filters = {"type==source.local", "type==exec.cachemount", "type==source.git.checkout"}},
      {.keep_bytes = keep_bytes, .keep_duration = kOthersKept},
      {.keep_bytes = keep_bytes},
      {.all = true, .keep_bytes = keep_bytes},
  };
}

}  // namespace strata
