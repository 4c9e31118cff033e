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
// Answers that are kept at a time: the first of them waits for the others.
constexpr size_t kMostAnswers = 32;

// The turn in which this thread leads, or led last, and of which queue.
struct Leading {
  const CallQueue* queue = nullptr;
  uint64_t turn = 0;
};

Leading& OfThisThread() {
  thread_local Leading leading;
  return leading;
}

}  // namespace

void CallQueue::GoesToGrpc([[maybe_unused]] void* thing) {
#ifdef STRATA_TSAN
  ::__tsan_release(thing);
#endif
}

void CallQueue::ComesFromGrpc([[maybe_unused]] void* thing) {
#ifdef STRATA_TSAN
  ::__tsan_acquire(thing);
#endif
}

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

bool CallQueue::NextTag(void** tag, bool* ok) {
  size_t kept = 0;
  {
    const MutexLock lock(answers_mutex_);
    kept = answers_.size();
  }
  if (kept == 0) {
    return queue_->Next(tag, ok);
  }
  if (kept < kMostAnswers) {
    // A deadline that is over: the sockets are looked at once.
    switch (queue_->AsyncNext(tag, ok, gpr_time_0(GPR_CLOCK_MONOTONIC))) {
      case grpc::CompletionQueue::GOT_EVENT:
        return true;
      case grpc::CompletionQueue::SHUTDOWN:
        return false;
      case grpc::CompletionQueue::TIMEOUT:
        break;
    }
  }
  SendAnswers();
  return true;
}

bool CallQueue::SendLater(Outgoing& answer) {
  const Leading& leading = OfThisThread();
  if (leading.queue != this) {
    return false;
  }
  const MutexLock lock(answers_mutex_);
  // Under the mutex: whoever leads next sends what is there after it has changed the turn.
  if (turn_.load() != leading.turn) {
    return false;
  }
  answers_.push_back(&answer);
  return true;
}

void CallQueue::SendAnswers() {
  std::vector<Outgoing*> answers;
  {
    const MutexLock lock(answers_mutex_);
    answers.swap(answers_);
    answers_.reserve(kMostAnswers);
  }
  for (Outgoing* answer : answers) {
    answer->Send();
  }
}

void CallQueue::Lead(uint64_t turn) {
  OfThisThread() = {.queue = this, .turn = turn};
  SendAnswers();  // of a leader that is stuck
  uint64_t steps = steps_.load() & ~uint64_t{1};
  while (turn_.load(std::memory_order_relaxed) == turn) {
    void* tag = nullptr;
    bool ok = false;
    if (!NextTag(&tag, &ok)) {
      const MutexLock lock(mutex_);
      ended_ = true;
      changed_.SignalAll();
      return;
    }
    if (tag == nullptr) {
      continue;
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
  SendAnswers();
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
