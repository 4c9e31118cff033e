// SPDX-License-Identifier: Apache-2.0
//
// TaskQueue: work for a few threads of its own, in the order it came. Safe from any thread; shared
// with callbacks that may come after its owner is gone.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <thread>
#include <vector>

#include "snapshotters/base/mutex.h"

namespace strata {

class TaskQueue {
 public:
  using Task = std::function<void()>;

  explicit TaskQueue(int threads);
  ~TaskQueue() { Stop(); }
  TaskQueue(const TaskQueue&) = delete;
  TaskQueue& operator=(const TaskQueue&) = delete;

  // Never blocks. After Stop the task is dropped.
  void Post(Task task);
  // The same, not before `when`.
  void PostAt(std::chrono::steady_clock::time_point when, Task task);

  // Ends after the tasks in hand and drops the others; joins. Not from a task.
  void Stop();

 private:
  void Run();
  // The next one; waits for it. Empty: stopped.
  Task Take();

  Mutex mutex_;
  CondVar changed_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  std::multimap<std::chrono::steady_clock::time_point, Task> later_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // last: they use all of the above
};

}  // namespace strata
