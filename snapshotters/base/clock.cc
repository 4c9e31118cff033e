// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/clock.h"

#include <ctime>

namespace strata {
namespace {

class SystemClock final : public Clock {
 public:
  TimeNs Now() override {
    timespec now{};
    // Cannot fail for CLOCK_REALTIME and a valid pointer (clock_gettime(2)).
    (void)clock_gettime(CLOCK_REALTIME, &now);
    constexpr int64_t kNsPerSecond = 1'000'000'000;
    return static_cast<int64_t>(now.tv_sec) * kNsPerSecond + now.tv_nsec;
  }
};

}  // namespace

Clock& Clock::System() {
  static SystemClock clock;
  return clock;
}

}  // namespace strata
