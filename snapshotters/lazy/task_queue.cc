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

void TaskQueue::PostAt(std::chrono::steady_clock::time_point when, Task task) {
  const MutexLock lock(mutex_);
  if (!stop_) {
    later_.emplace(when, std::move(task));
    changed_.SignalAll();  // whoever waits may wait too long
  }
}

void TaskQueue::Stop() {
  std::deque<Task> dropped;  // what tasks hold may call back: it goes after the lock
  decltype(later_) dropped_later;
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    dropped.swap(tasks_);
    dropped_later.swap(later_);
    changed_.SignalAll();
  }
  dropped.clear();
  dropped_later.clear();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) {
      thread.join();
    }
  }
}

TaskQueue::Task TaskQueue::Take() {
  const MutexLock lock(mutex_);
  while (!stop_) {
    if (!later_.empty() && later_.begin()->first <= std::chrono::steady_clock::now()) {
      tasks_.push_back(std::move(later_.begin()->second));
      later_.erase(later_.begin());
    } else if (!tasks_.empty()) {
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      return task;
    } else if (later_.empty()) {
      changed_.Wait(mutex_);
    } else {
      (void)changed_.WaitUntil(mutex_, later_.begin()->first);  // it is looked at again
    }
  }
  return nullptr;
}

void TaskQueue::Run() {
  for (Task task = Take(); task != nullptr; task = Take()) {
    task();
    task = nullptr;  // what it holds goes now, not when there is another one
  }
}

}  // namespace strata
