// SPDX-License-Identifier: Apache-2.0
//
// What travels with one call: whether the caller has gone. Cancel() may come from any thread while
// the call runs on another; long work (copies, walks) looks at it between entries.
#pragma once

#include <atomic>

#include "snapshotters/base/status.h"

namespace strata {

class CallContext {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  [[nodiscard]] bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

  // Cancelled once the caller has gone.
  [[nodiscard]] Status Check() const {
    return cancelled() ? MakeStatus(StatusCode::kCancelled, "the caller cancelled the call")
                       : OkStatus();
  }

 private:
  std::atomic<bool> cancelled_{false};
};

}  // namespace strata
