// SPDX-License-Identifier: Apache-2.0
//
// TreeCrew: the threads of one walk through a tree. The caller's thread begins alone; when the tree
// turns out to be large, others join it, and whoever has nothing to do is given a part by one who
// has. The number of those that join is bounded for the walk, and for all walks of the process
// together: many walks at once do not make many threads. All but Run() is safe from any thread.
#pragma once

#include <pthread.h>

#include <atomic>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/directory_entries.h"

namespace strata {

class TreeCrew {
 public:
  // What one thread walks: a directory that is counted already, with all that is in it, or only
  // with what is below `some` of its entries, which are not counted.
  struct Part {
    UniqueFd directory;
    std::string path;  // as messages show it
    std::optional<EntryBatch> some;
  };
  // Walks a part; on any of the threads.
  using Work = std::function<Status(TreeCrew& crew, Part part)>;

  explicit TreeCrew(Work work) : work_(std::move(work)) {}

  // Walks `whole`, and returns when all parts are done: the first error, after which no part is
  // begun any more.
  Status Run(Part whole);

  // For Work. Somebody has nothing to do: Give() a part if there is one.
  [[nodiscard]] bool Hungry() const { return hungry_.load(std::memory_order_relaxed) > 0; }
  void Give(Part part);
  // So many entries were looked at: when they become many, there is work for another thread.
  void Looked(size_t entries);
  // Some part has failed, so the answer of the others is of no use.
  [[nodiscard]] bool failed() const { return failed_.load(std::memory_order_relaxed); }

 private:
  static void* Help(void* crew);

  // Until no part is left, and none in hand that could give more.
  void Labour();
  void Weigh() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Join();

  const Work work_;
  std::atomic<size_t> looked_{0};
  std::atomic<int> hungry_{0};  // threads that wait, less the parts that wait for them
  std::atomic<bool> failed_{false};

  Mutex mutex_;  // not held while anybody walks
  CondVar changed_;
  std::deque<Part> parts_ ABSL_GUARDED_BY(mutex_);
  int busy_ ABSL_GUARDED_BY(mutex_) = 0;  // threads with a part in hand
  int idle_ ABSL_GUARDED_BY(mutex_) = 0;
  Status first_error_ ABSL_GUARDED_BY(mutex_);
  std::vector<pthread_t> helpers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace strata
