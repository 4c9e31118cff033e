// SPDX-License-Identifier: Apache-2.0
//
// FallbackLog: the latest layers that were not served lazily, and which layers need not be asked
// about again for a while. Plain data: its owner's mutex guards it.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/fallback_reason.h"

namespace strata {

struct Fallback {
  std::string reference;
  std::string digest;
  FallbackReason reason = FallbackReason::kNone;
  std::string detail;
};

class FallbackLog {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // One row for each layer of an image; the latest failure counts.
  void Add(const std::string& reference, const std::string& digest, const Status& status);
  // The layer is served lazily now.
  void Forget(const std::string& reference, const std::string& digest);
  [[nodiscard]] const std::deque<Fallback>& rows() const { return rows_; }

  // Remembers, for some minutes, the answers that asking again would not change: not lazy, not
  // pinned. `key` is the question's.
  void Remember(const std::string& key, const Status& status, Time now);
  // OK when nothing is remembered.
  Status Recall(const std::string& key, Time now);

 private:
  struct Answer {
    Status status;
    Time expires;
  };
  std::deque<Fallback> rows_;
  std::map<std::string, Answer> answers_;
};

}  // namespace strata
