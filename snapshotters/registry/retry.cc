// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/retry.h"

#include <absl/strings/numbers.h>
#include <absl/strings/string_view.h>

#include <algorithm>
#include <ctime>
#include <string>

namespace strata {
namespace {

constexpr int64_t kLongestSeconds = 24 * 60 * 60;

}  // namespace

bool IsRetryable(const AttemptFailure& failure) {
  const int code = failure.http_status;
  return code == 0 || code == 408 || code == 429 || (code >= 500 && code != 501);
}

std::optional<std::chrono::milliseconds> RetryDelay(const RetryOptions& options, int attempt,
                                                    const AttemptFailure& failure,
                                                    std::chrono::milliseconds time_left,
                                                    double random) {
  if (!IsRetryable(failure) || attempt >= options.attempts) {
    return std::nullopt;
  }
  std::chrono::milliseconds bound = options.first_delay;
  for (int i = 1; i < attempt && bound < options.ceiling; ++i) {
    bound *= 2;
  }
  bound = std::min(bound, options.ceiling);
  std::chrono::milliseconds delay(
      static_cast<int64_t>(static_cast<double>(bound.count()) * std::clamp(random, 0.0, 1.0)));
  delay = std::max(delay, failure.retry_after.value_or(std::chrono::milliseconds(0)));
  if (delay >= time_left) {
    return std::nullopt;
  }
  return delay;
}

std::optional<std::chrono::milliseconds> ParseRetryAfter(std::string_view value, TimeNs now) {
  int64_t seconds = 0;
  if (absl::SimpleAtoi(absl::string_view(value.data(), value.size()), &seconds)) {
    if (seconds < 0) {
      return std::nullopt;
    }
    return std::chrono::seconds(std::min(seconds, kLongestSeconds));
  }
  std::tm date{};
  const std::string text(value);
  if (strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &date) == nullptr) {
    return std::nullopt;
  }
  const int64_t wait = int64_t{timegm(&date)} - now / 1'000'000'000;
  return std::chrono::seconds(std::clamp(wait, int64_t{0}, kLongestSeconds));
}

}  // namespace strata
