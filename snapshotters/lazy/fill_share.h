// SPDX-License-Identifier: Apache-2.0
//
// FillShare: how much each class of fetches may have under way. Not thread-safe: its owner locks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace strata {

// Who waits, the most urgent first.
enum class FillClass : uint8_t { kDemand, kReadAhead, kPrefetch, kBackground };
constexpr size_t kFillClasses = 4;

// Higher classes use more of what there is, and each class, even the last, always has one request
// under way while it has work: readers never wait for background work, and that always moves.
class FillShare {
 public:
  struct Limits {
    uint64_t bytes = 0;  // of requests and of spans that are not decoded yet, altogether
    uint64_t request_bytes = 0;
    int requests = 1;  // of all classes but demand, which is never counted out
  };

  explicit FillShare(const Limits& limits) : limits_(limits) {}

  // How long the next request of the class may be (one span may always be longer); 0: not yet.
  // `held` bytes of memory are taken by something else.
  [[nodiscard]] uint64_t Room(FillClass fill_class, uint64_t held) const;
  // No request of the class is under way.
  [[nodiscard]] bool idle(FillClass fill_class) const { return Of(fill_class).requests == 0; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

  void Start(FillClass fill_class, uint64_t bytes);
  void EndRequest(FillClass fill_class);
  // These were decoded, or given up.
  void Release(uint64_t bytes);

 private:
  struct Use {
    int requests = 0;
  };
  [[nodiscard]] const Use& Of(FillClass fill_class) const {
    return uses_[static_cast<size_t>(fill_class)];
  }
  [[nodiscard]] Use& Of(FillClass fill_class) { return uses_[static_cast<size_t>(fill_class)]; }

  const Limits limits_;
  std::array<Use, kFillClasses> uses_;
  uint64_t bytes_ = 0;
};

}  // namespace strata
