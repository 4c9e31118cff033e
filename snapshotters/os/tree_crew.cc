// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/tree_crew.h"

#include <utility>

namespace strata {
namespace {

// A thread is started when so many more entries were looked at: some 2 ms of work, where a thread
// costs 0.05 ms.
constexpr size_t kEntriesForHelper = 1024;

// Beside the caller's. Parts of a tree that is not in memory wait for the disk, so even one
// processor has work for several: measured on two, with a cold cache, four threads take 0.7 of the
// time of one, and eight 0.65.
constexpr size_t kMostHelpers = 3;
constexpr int kMostHelpersOfAll = 6;

std::atomic<int> g_helpers{0};

bool TakeHelper() {
  if (g_helpers.fetch_add(1) < kMostHelpersOfAll) {
    return true;
  }
  g_helpers.fetch_sub(1);
  return false;
}

}  // namespace

Status TreeCrew::Run(Part whole) {
  Give(std::move(whole));
  Labour();
  Join();
  const MutexLock lock(mutex_);
  return first_error_;
}

void TreeCrew::Weigh() {
  hungry_.store(idle_ - static_cast<int>(parts_.size()), std::memory_order_relaxed);
}

void TreeCrew::Give(Part part) {
  const MutexLock lock(mutex_);
  if (!failed()) {
    parts_.push_back(std::move(part));
    Weigh();
    changed_.Signal();
  }
}

void TreeCrew::Looked(size_t entries) {
  const size_t before = looked_.fetch_add(entries, std::memory_order_relaxed);
  if (before / kEntriesForHelper == (before + entries) / kEntriesForHelper) {
    return;
  }
  const MutexLock lock(mutex_);
  if (helpers_.size() == kMostHelpers || !TakeHelper()) {
    return;
  }
  pthread_t thread{};
  // Not std::thread, which throws where there may be no more threads. Those there are will do.
  if (::pthread_create(&thread, nullptr, Help, this) == 0) {
    helpers_.push_back(thread);
  } else {
    g_helpers.fetch_sub(1);
  }
}

void* TreeCrew::Help(void* crew) {
  static_cast<TreeCrew*>(crew)->Labour();
  g_helpers.fetch_sub(1);
  return nullptr;
}

void TreeCrew::Labour() {
  const MutexLock lock(mutex_);
  while (true) {
    if (!parts_.empty()) {
      Part part = std::move(parts_.front());
      parts_.pop_front();
      ++busy_;
      Weigh();
      mutex_.Unlock();
      const Status status = work_(*this, std::move(part));
      mutex_.Lock();
      --busy_;
      if (!status.ok()) {
        first_error_.Update(status);
        failed_.store(true, std::memory_order_relaxed);
        parts_.clear();
      }
    } else if (busy_ > 0) {
      ++idle_;
      Weigh();
      changed_.Wait(mutex_);
      --idle_;
      Weigh();
    } else {
      changed_.SignalAll();  // the end for those who wait
      return;
    }
  }
}

// No part is left, so nobody starts another one.
void TreeCrew::Join() {
  std::vector<pthread_t> helpers;
  {
    const MutexLock lock(mutex_);
    helpers.swap(helpers_);
  }
  for (const pthread_t helper : helpers) {
    (void)::pthread_join(helper, nullptr);  // fails only for what is no thread of ours
  }
}

}  // namespace strata
