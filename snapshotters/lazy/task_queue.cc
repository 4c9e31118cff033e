// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/task_queue.h"

#include <utility>

namespace strata {

TaskQueue::TaskQueue(int threads) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Run(); });
  }
}

void TaskQueue::Post(Task task) {
  const MutexLock lock(mutex_);
  if (!stop_) {
    tasks_.push_back(std::move(task));
    changed_.Signal();
  }
}

void TaskQueue::Stop() {
  std::deque<Task> dropped;  // what tasks hold may call back: it goes after the lock
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    dropped.swap(tasks_);
    changed_.SignalAll();
  }
  dropped.clear();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) {
      thread.join();
    }
  }
}

void TaskQueue::Run() {
  while (true) {
    Task task;
    {
      const MutexLock lock(mutex_);
      while (tasks_.empty() && !stop_) {
        changed_.Wait(mutex_);
      }
      if (stop_) {
        return;
      }
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace strata
