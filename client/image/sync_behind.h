// SPDX-License-Identifier: Apache-2.0
//
// SyncBehind: makes what was written durable, by a thread of its own, while more is being written.
// Safe from any thread.
#pragma once

#include <thread>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class SyncBehind {
 public:
  SyncBehind() = default;
  // Waits for the sync that is under way; what is left is not begun.
  ~SyncBehind();
  SyncBehind(const SyncBehind&) = delete;
  SyncBehind& operator=(const SyncBehind&) = delete;

  // `fd` is of the file system that was written to, and was opened before: only so does syncfs(2)
  // tell of each write that failed. It is closed once it is synced.
  void Add(UniqueFd fd);

  // All that was added is durable; else the first error. Nothing is to be added afterwards.
  Status Finish();

 private:
  void Work();
  void End(bool all);

  Mutex mutex_;
  CondVar changed_;
  std::vector<UniqueFd> waiting_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_ ABSL_GUARDED_BY(mutex_);  // begun by the first Add
};

}  // namespace strata
