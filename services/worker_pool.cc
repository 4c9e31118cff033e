// SPDX-License-Identifier: Apache-2.0
#include "services/worker_pool.h"

#include <chrono>
#include <thread>
#include <utility>

namespace strata {
namespace {

// A thread that waits keeps its stack and what its heap has in stock; a new one takes microseconds.
constexpr std::chrono::seconds kIdleBeforeLeaving{2};

}  // namespace

WorkerPool::~WorkerPool() {
  const MutexLock lock(mutex_);
  stop_ = true;
  work_.SignalAll();
  while (threads_ > 0) {
    left_.Wait(mutex_);
  }
}

bool WorkerPool::Submit(std::function<void()> job) {
  const MutexLock lock(mutex_);
  if (jobs_.size() >= options_.waiting) {
    return false;
  }
  jobs_.push_back(std::move(job));
  if (jobs_.size() > idle_ && threads_ < options_.threads) {
    ++threads_;
    // Detached: it counts itself out under the lock, and the destructor waits for the count.
    std::thread([this] { Run(); }).detach();
  } else {
    work_.Signal();
  }
  return true;
}

void WorkerPool::Run() {
  const MutexLock lock(mutex_);
  while (true) {
    if (jobs_.empty()) {
      if (stop_) {
        break;
      }
      ++idle_;
      const bool timed_out =
          work_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kIdleBeforeLeaving);
      --idle_;
      if (timed_out && jobs_.empty()) {
        break;
      }
      continue;
    }
    std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    mutex_.Unlock();
    job();
    job = nullptr;  // what it holds goes before the lock is taken
    mutex_.Lock();
  }
  --threads_;
  left_.Signal();
}

}  // namespace strata
