// SPDX-License-Identifier: Apache-2.0
//
// EventThreads: threads that sleep in a read(2) until an event comes, one pinned to each CPU: an
// event wakes all of them, and the one on the CPU of the process that waits is there first, without
// the wake-up of another CPU, which costs five times as much as the answer. One owner.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

class EventThreads {
 public:
  EventThreads();
  ~EventThreads();  // whoever stops them has told `run` to return
  EventThreads(const EventThreads&) = delete;
  EventThreads& operator=(const EventThreads&) = delete;

  // `count` threads that call `run` once; 0: one for each CPU that this process may use, at most
  // 16.
  Status Start(int count, const std::function<void()>& run);
  // Returns when every `run` has. System calls of theirs that block are interrupted (EINTR), again
  // and again until then.
  void Stop();

 private:
  class Thread;
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace strata
