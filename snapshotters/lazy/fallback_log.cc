// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fallback_log.h"

#include <cstddef>

namespace strata {
namespace {

constexpr size_t kMostRows = 256;
constexpr size_t kMostAnswers = 4096;
constexpr std::chrono::minutes kKept{5};

}  // namespace

void FallbackLog::Add(const std::string& reference, const std::string& digest,
                      const Status& status) {
  Forget(reference, digest);
  if (rows_.size() >= kMostRows) {
    rows_.pop_front();
  }
  rows_.push_back({reference, digest, ReasonOf(status), std::string(StatusMessage(status))});
}

void FallbackLog::Forget(const std::string& reference, const std::string& digest) {
  std::erase_if(rows_, [&](const Fallback& row) {
    return row.reference == reference && row.digest == digest;
  });
}

void FallbackLog::Remember(const std::string& key, const Status& status, Time now) {
  const FallbackReason reason = ReasonOf(status);
  if (reason != FallbackReason::kNotLazy && reason != FallbackReason::kNoPin) {
    return;
  }
  if (answers_.size() >= kMostAnswers) {
    std::erase_if(answers_, [now](const auto& item) { return item.second.expires <= now; });
    if (answers_.size() >= kMostAnswers) {
      answers_.clear();
    }
  }
  answers_[key] = {status, now + kKept};
}

Status FallbackLog::Recall(const std::string& key, Time now) {
  const auto found = answers_.find(key);
  if (found == answers_.end()) {
    return OkStatus();
  }
  if (found->second.expires <= now) {
    answers_.erase(found);
    return OkStatus();
  }
  return found->second.status;
}

}  // namespace strata
