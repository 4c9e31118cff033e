// SPDX-License-Identifier: Apache-2.0
//
// UsageCache: what snapshots that are in use take on disk, as far as it was found out lately. A
// walk of a large tree is dear and is asked for every few seconds (kubelet's statistics), so its
// answer holds for a multiple of the time that it took; one of a small tree is always made anew.
// Nobody walks a tree that somebody else is walking. Safe from any thread.
#pragma once

#include <absl/base/thread_annotations.h>

#include <chrono>
#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

class UsageCache {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Walk = std::function<StatusOr<Usage>()>;

  struct Options {
    std::chrono::milliseconds most{10'000};  // no answer is older; 0: nothing is kept
    int times = 10;                          // an answer holds so many times as long as it took
    std::chrono::milliseconds least{10};     // a walk that was quicker is not worth keeping
    std::function<Time()> now = std::chrono::steady_clock::now;
  };

  explicit UsageCache(Options options) : options_(std::move(options)) {}

  // What is kept, or what `walk` says, or another caller's walk that is under way. Cancelled when
  // `call` is, also while it waits for another's.
  StatusOr<Usage> Get(CallContext& call, SnapshotId id, const Walk& walk);
  // A walk that begins now, after one that is under way: nothing that was written before is missed.
  // The answer is not kept, for the snapshot changes its kind.
  StatusOr<Usage> Fresh(CallContext& call, SnapshotId id, const Walk& walk);
  // The snapshot is gone.
  void Forget(SnapshotId id);

 private:
  // One walk, shared by all who wait for it.
  struct Walking {
    bool ended = false;
    StatusOr<Usage> usage = Usage{};
  };
  struct Entry {
    std::shared_ptr<Walking> walking;  // null: nobody walks
    Time expires;
    Usage usage;
  };

  // Until the walk has ended. Cancelled: the caller has gone.
  Status Await(CallContext& call, const Walking& walking) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // With the mutex unlocked meanwhile; nobody walks this tree. Keeps the answer if `keep`.
  StatusOr<Usage> Run(SnapshotId id, const Walk& walk, bool keep)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  Mutex mutex_;  // not held during walks
  CondVar walked_;
  std::unordered_map<SnapshotId, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace strata
