// SPDX-License-Identifier: Apache-2.0
//
// CallGate: counts the calls in flight, so that a stop can wait for just them, and turns new ones
// away meanwhile. Safe from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

namespace strata {

class CallGate {
 public:
  // False while draining: the call must be refused. Every true is followed by one Leave.
  [[nodiscard]] bool Enter() {
    in_flight_.fetch_add(1);
    if (draining_.load()) {
      Leave();
      return false;
    }
    return true;
  }

  void Leave() { in_flight_.fetch_sub(1); }

  // Calls that would go on for long are to end.
  [[nodiscard]] bool draining() const { return draining_.load(); }

  [[nodiscard]] bool Idle() const { return in_flight_.load() == 0; }

  // Whether all have left within `patience`.
  bool Drain(std::chrono::milliseconds patience) {
    constexpr std::chrono::milliseconds kPoll{1};
    const auto deadline = std::chrono::steady_clock::now() + patience;
    draining_.store(true);
    while (in_flight_.load() > 0) {
      if (std::chrono::steady_clock::now() >= deadline) {
        return false;
      }
      std::this_thread::sleep_for(kPoll);
    }
    return true;
  }

 private:
  std::atomic<int> in_flight_{0};
  std::atomic<bool> draining_{false};
};

}  // namespace strata
