// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fill_share.h"

#include <algorithm>

#include "snapshotters/base/check.h"

namespace strata {
namespace {

// Quarters of the memory that a class may fill up.
constexpr std::array<uint64_t, kFillClasses> kQuarters = {4, 3, 2, 1};
// A class that may use no more memory, and has nothing under way, gets a piece of this size.
constexpr uint64_t kLeastDivisor = 4;

}  // namespace

uint64_t FillShare::Room(FillClass fill_class, uint64_t held) const {
  const uint64_t least = std::max<uint64_t>(1, limits_.request_bytes / kLeastDivisor);
  const uint64_t most = limits_.bytes / 4 * kQuarters[static_cast<size_t>(fill_class)];
  const uint64_t used = bytes_ + held;
  uint64_t room = used < most ? std::min(most - used, limits_.request_bytes) : 0;
  if (fill_class != FillClass::kDemand) {
    // Crumbs make requests that cost more than they bring.
    room = room < least ? 0 : room;
    int lower = 0;
    for (size_t i = 1; i < kFillClasses; ++i) {
      lower += uses_[i].requests;
    }
    room = lower < limits_.requests ? room : 0;
  }
  return idle(fill_class) ? std::max(room, least) : room;
}

void FillShare::Start(FillClass fill_class, uint64_t bytes) {
  ++Of(fill_class).requests;
  bytes_ += bytes;
}

void FillShare::EndRequest(FillClass fill_class) {
  STRATA_CHECK(Of(fill_class).requests > 0);
  --Of(fill_class).requests;
}

void FillShare::Release(uint64_t bytes) {
  STRATA_CHECK(bytes <= bytes_);
  bytes_ -= bytes;
}

}  // namespace strata
