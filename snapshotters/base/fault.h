// SPDX-License-Identifier: Apache-2.0
//
// Fault points: named places in production code where a test can make the process die or an
// operation fail. Unarmed, a point costs one relaxed load. Safe from any thread.
//
// Crash tests run the same script once per point and kill the process there, so that every step of
// every mutation has been the last one (tests/crash).
#pragma once

#include <atomic>
#include <functional>
#include <string_view>

#include "snapshotters/base/status.h"

namespace strata {

class FaultPoints {
 public:
  // Called with the point's name each time one is passed; what it returns is what the point
  // returns. It may also not return at all (kill itself).
  using Handler = std::function<Status(std::string_view point)>;

  // Arms every point with `handler`; an empty one disarms. Call it while no point can be passed.
  static void Arm(Handler handler);

  // Arms from the environment: STRATA_FAULT="NAME:N" ends the process with SIGKILL the N-th time
  // (from 1) that point NAME is passed; "*:N" counts all points; "NAME:N:ERRNO" lets it fail with
  // that errno, once, instead. STRATA_FAULT_TRACE=FILE appends the name of each point passed.
  // Anything else in the variable is an error.
  static Status ArmFromEnvironment();

  static Status Reach(std::string_view point) {
    if (!armed_.load(std::memory_order_relaxed)) [[likely]] {
      return OkStatus();
    }
    return ReachSlow(point);
  }

 private:
  static Status ReachSlow(std::string_view point);
  static std::atomic<bool> armed_;
};

}  // namespace strata

// In a function that returns Status or StatusOr: a place where a test can stop or fail it.
#define STRATA_FAULT_POINT(name) STRATA_RETURN_IF_ERROR(::strata::FaultPoints::Reach(name))

// Where the operation can no longer fail: a place where a test can only stop the process.
#define STRATA_KILL_POINT(name) (void)::strata::FaultPoints::Reach(name)
