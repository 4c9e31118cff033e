// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/usage_cache.h"

#include <algorithm>

namespace strata {
namespace {

// A call that is cancelled tells nobody; whoever waits for another's walk looks this often.
constexpr std::chrono::milliseconds kLook{50};
// Answers that nobody asks for any more are looked for when there are more than this.
constexpr size_t kMany = 4096;

}  // namespace

Status UsageCache::Await(CallContext& call, const Walking& walking) {
  while (!walking.ended) {
    STRATA_RETURN_IF_ERROR(call.Check());
    (void)walked_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kLook);
  }
  return OkStatus();
}

StatusOr<Usage> UsageCache::Run(SnapshotId id, const Walk& walk, bool keep) {
  const auto walking = std::make_shared<Walking>();
  entries_[id].walking = walking;
  mutex_.Unlock();
  const Time began = options_.now();
  StatusOr<Usage> usage = walk();
  const Time now = options_.now();
  mutex_.Lock();
  walking->ended = true;
  walking->usage = usage;
  walked_.SignalAll();
  const auto entry = entries_.find(id);
  const bool is_known = entry != entries_.end() && entry->second.walking == walking;
  if (is_known && keep && usage.ok() && now - began >= options_.least) {
    entry->second.walking = nullptr;
    entry->second.usage = *usage;
    entry->second.expires =
        now + std::min<Time::duration>((now - began) * options_.times, options_.most);
  } else if (is_known) {
    entries_.erase(entry);
  }
  if (entries_.size() > kMany) {
    std::erase_if(entries_, [now](const auto& item) {
      return item.second.walking == nullptr && item.second.expires <= now;
    });
  }
  return usage;
}

StatusOr<Usage> UsageCache::Get(CallContext& call, SnapshotId id, const Walk& walk) {
  const MutexLock lock(mutex_);
  while (true) {
    const auto entry = entries_.find(id);
    if (entry == entries_.end()) {
      return Run(id, walk, /*keep=*/true);
    }
    const std::shared_ptr<Walking> walking = entry->second.walking;
    if (walking == nullptr) {
      return options_.now() < entry->second.expires ? StatusOr<Usage>(entry->second.usage)
                                                    : Run(id, walk, /*keep=*/true);
    }
    STRATA_RETURN_IF_ERROR(Await(call, *walking));
    // That one's caller may have gone; this one has not.
    if (walking->usage.status().code() != StatusCode::kCancelled) {
      return walking->usage;
    }
  }
}

StatusOr<Usage> UsageCache::Fresh(CallContext& call, SnapshotId id, const Walk& walk) {
  const MutexLock lock(mutex_);
  while (true) {
    const auto entry = entries_.find(id);
    if (entry == entries_.end() || entry->second.walking == nullptr) {
      return Run(id, walk, /*keep=*/false);
    }
    const std::shared_ptr<Walking> walking = entry->second.walking;
    STRATA_RETURN_IF_ERROR(Await(call, *walking));
  }
}

void UsageCache::Forget(SnapshotId id) {
  const MutexLock lock(mutex_);
  entries_.erase(id);  // a walk under way goes on for those who wait for it
}

}  // namespace strata
