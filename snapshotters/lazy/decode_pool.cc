// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/decode_pool.h"

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace strata {
namespace {

constexpr int kMostThreads = 8;
// Every so many jobs the least urgent one goes first.
constexpr size_t kFairness = 8;
constexpr std::chrono::seconds kKeepBuffers{1};
// Buffers from here on are mappings of their own, which go back to the kernel when they are freed.
// Left alone, glibc raises the threshold to the largest that was freed (mallopt(3), up to 32 MiB),
// and malloc_trim gives nothing back of the ends of the threads' arenas.
constexpr int kLeastMapping = 256 << 10;

}  // namespace

DecodePool::DecodePool(int threads) {
  (void)::mallopt(M_MMAP_THRESHOLD, kLeastMapping);  // a failure costs memory only
  if (threads <= 0) {
    threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMostThreads);
  }
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Run(); });
  }
}

void DecodePool::Push(FillClass fill_class, Job job) {
  const MutexLock lock(mutex_);
  if (stopping_) {
    return;
  }
  jobs_[static_cast<size_t>(fill_class)].push_back(std::move(job));
  changed_.Signal();
}

void DecodePool::Stop() {
  std::array<std::deque<Job>, kFillClasses> dropped;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    dropped.swap(jobs_);
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
  threads_.clear();
}

bool DecodePool::empty() const {
  return std::all_of(jobs_.begin(), jobs_.end(), [](const auto& jobs) { return jobs.empty(); });
}

DecodePool::Job DecodePool::Take() {
  const bool last_first = ++taken_ % kFairness == 0;
  for (size_t i = 0; i < kFillClasses; ++i) {
    auto& jobs = jobs_[last_first ? kFillClasses - 1 - i : i];
    if (!jobs.empty()) {
      Job job = std::move(jobs.front());
      jobs.pop_front();
      return job;
    }
  }
  return {};
}

void DecodePool::Run() {
  std::unique_ptr<DecodeScratch> scratch;
  while (true) {
    Job job;
    bool cold = false;  // nobody has buffers any more
    {
      const MutexLock lock(mutex_);
      const auto idle = std::chrono::steady_clock::now() + kKeepBuffers;
      bool late = false;
      while (!stopping_ && empty() && !late) {
        if (scratch == nullptr) {
          changed_.Wait(mutex_);
        } else {
          late = changed_.WaitUntil(mutex_, idle);
        }
      }
      if (stopping_) {
        return;
      }
      if (!empty()) {
        job = Take();
        warm_ += scratch == nullptr ? 1 : 0;
      } else {
        cold = --warm_ == 0;
      }
    }
    if (!job) {
      scratch.reset();
      if (cold) {
        // What the whole burst has allocated and freed; free alone keeps it in the process.
        (void)::malloc_trim(0);
      }
      continue;
    }
    if (scratch == nullptr) {
      scratch = std::make_unique<DecodeScratch>();
    }
    job(*scratch);
  }
}

}  // namespace strata
