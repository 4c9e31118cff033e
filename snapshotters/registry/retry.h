// SPDX-License-Identifier: Apache-2.0
//
// RetryDelay: whether a failed request is tried again, and when. Pure, safe from any thread.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

#include "snapshotters/base/clock.h"

namespace strata {

struct RetryOptions {
  int attempts = 5;  // the first one counts
  std::chrono::milliseconds first_delay{100};
  std::chrono::milliseconds ceiling{5'000};
};

// What came of an attempt.
struct AttemptFailure {
  int http_status = 0;  // 0: no whole answer came (refused, reset, cut off, stalled)
  std::optional<std::chrono::milliseconds> retry_after;
};

// Connection failures, 408, 429, and 5xx except 501.
bool IsRetryable(const AttemptFailure& failure);

// How long to wait after the `attempt`-th (from 1) failure: full jitter below an exponential that
// ends at the ceiling, or Retry-After when that is longer, even above the ceiling. Nothing when it
// is not to be tried again, or when the wait would not end before `time_left` is over: an answer at
// once is worth more than the same answer late. `random` is in [0, 1).
std::optional<std::chrono::milliseconds> RetryDelay(const RetryOptions& options, int attempt,
                                                    const AttemptFailure& failure,
                                                    std::chrono::milliseconds time_left,
                                                    double random);

// The value of a Retry-After: seconds or an HTTP-date (a past one is 0). Nothing if it is neither.
std::optional<std::chrono::milliseconds> ParseRetryAfter(std::string_view value, TimeNs now);

}  // namespace strata
