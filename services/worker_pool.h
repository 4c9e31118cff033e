// SPDX-License-Identifier: Apache-2.0
//
// WorkerPool: a bounded number of threads for calls that block. Threads come on demand and leave
// when there is nothing to do. Safe from any thread.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>

#include "snapshotters/base/mutex.h"

namespace strata {

class WorkerPool {
 public:
  struct Options {
    size_t threads = 24;     // at most; also the most mutations that share one commit
    size_t waiting = 16384;  // jobs that may wait for a thread
  };

  explicit WorkerPool(Options options) : options_(options) {}

  // Runs what was accepted, then returns.
  ~WorkerPool();

  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Runs `job` on a thread of the pool. False when too many wait already; the job is dropped.
  [[nodiscard]] bool Submit(std::function<void()> job);

 private:
  void Run();

  const Options options_;
  Mutex mutex_;
  CondVar work_;
  CondVar left_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mutex_);
  size_t threads_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t idle_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace strata
