// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/call_queue.h"

#include <utility>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STRATA_TSAN 1
#include <sanitizer/tsan_interface.h>
#endif
#endif

namespace strata {
namespace {

constexpr size_t kThreads = 2;
// With those that have come for leaders that were stuck.
constexpr size_t kMostThreads = 8;

// That gRPC hands a tag from thread to thread, ThreadSanitizer cannot see: Debian's build of gRPC
// is not made for it.
void GoesToGrpc([[maybe_unused]] void* tag) {
#ifdef STRATA_TSAN
  ::__tsan_release(tag);
#endif
}
void ComesFromGrpc([[maybe_unused]] void* tag) {
#ifdef STRATA_TSAN
  ::__tsan_acquire(tag);
#endif
}

}  // namespace

void* CallQueue::Tag::ForGrpc() {
  GoesToGrpc(this);
  return this;
}

CallQueue::CallQueue(std::unique_ptr<grpc::ServerCompletionQueue> queue,
                     std::chrono::milliseconds patience)
    : queue_(std::move(queue)), patience_(patience) {}

void CallQueue::Start() {
  const MutexLock lock(mutex_);
  while (threads_.size() < kThreads) {
    AddThread();
  }
}

void CallQueue::AddThread() {
  if (threads_.size() < kMostThreads) {
    threads_.emplace_back([this] { Run(); });
  }
}

void CallQueue::Run() {
  uint64_t turn = 0;
  while (WaitForTurn(&turn)) {
    Lead(turn);
  }
}

bool CallQueue::WaitForTurn(uint64_t* turn) {
  MutexLock lock(mutex_);
  ++waiting_;
  uint64_t seen = steps_.load();
  while (led_ && !ended_) {
    if (!changed_.WaitUntil(mutex_, std::chrono::steady_clock::now() + patience_)) {
      continue;
    }
    const uint64_t steps = steps_.load();
    if (led_ && steps == seen && steps % 2 != 0) {
      AddThread();  // the next one to wait, in case that this one gets stuck, too
      break;
    }
    seen = steps;
  }
  --waiting_;
  if (ended_) {
    return false;
  }
  led_ = true;
  leader_ = std::this_thread::get_id();
  *turn = turn_.fetch_add(1) + 1;
  return true;
}

void CallQueue::Lead(uint64_t turn) {
  uint64_t steps = steps_.load() & ~uint64_t{1};
  while (turn_.load(std::memory_order_relaxed) == turn) {
    void* tag = nullptr;
    bool ok = false;
    if (!queue_->Next(&tag, &ok)) {
      const MutexLock lock(mutex_);
      ended_ = true;
      changed_.SignalAll();
      return;
    }
    ComesFromGrpc(tag);
    steps_.store(++steps, std::memory_order_relaxed);
    static_cast<Tag*>(tag)->Proceed(ok);
    ++steps;
    if (turn_.load(std::memory_order_relaxed) == turn) {
      steps_.store(steps, std::memory_order_relaxed);
    }
  }
}

bool CallQueue::HandOver() {
  {
    const MutexLock lock(mutex_);
    if (leader_ != std::this_thread::get_id()) {
      return true;  // another leads already
    }
    if (waiting_ == 0) {
      return false;
    }
    led_ = false;
    leader_ = std::thread::id();
    turn_.fetch_add(1);
  }
  changed_.SignalAll();  // not under the mutex, which who wakes up would find taken
  return true;
}

void CallQueue::Stop() {
  queue_->Shutdown();
  while (true) {
    std::vector<std::thread> threads;
    {
      const MutexLock lock(mutex_);
      threads.swap(threads_);
    }
    if (threads.empty()) {
      return;
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
  }
}

}  // namespace strata
