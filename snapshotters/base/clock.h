// SPDX-License-Identifier: Apache-2.0
//
// Wall-clock time, injected so that tests own it. Implementations are safe from any thread.
#pragma once

#include <cstdint>

namespace strata {

// Nanoseconds since 1970-01-01 UTC.
using TimeNs = int64_t;

class Clock {
 public:
  virtual ~Clock() = default;
  // CLOCK_REALTIME with full resolution: containerd's suite brackets our times with its own clock,
  // so a coarse clock or a truncation would fall outside.
  virtual TimeNs Now() = 0;

  // The machine's clock; lives for ever.
  static Clock& System();
};

}  // namespace strata
