// SPDX-License-Identifier: Apache-2.0
//
// Reaper: removes the directories of snapshots that are gone, in the background and after
// everything else. A directory is renamed to trash/ first, so that snapshots/ never holds half a
// tree. Safe from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

class Reaper {
 public:
  struct Options {
    // A directory rests this long before it is removed, so that a burst of removals is answered
    // before its bytes go. Kick() ends the rest: containerd asks for a Cleanup after every
    // collection. What was not kicked is removed at half speed, so that half of a processor and of
    // the disk is left to calls.
    std::chrono::milliseconds rest{10'000};
    int threads = 1;
    // Discard removes, and returns when that is done.
    bool synchronous = false;
  };

  // Both descriptors must outlive this. What a predecessor left in trash/ is removed first.
  Reaper(int snapshots_fd, int trash_fd, Options options);

  // Ends after the file in hand; what is left is found by the next start.
  ~Reaper();

  Reaper(const Reaper&) = delete;
  Reaper& operator=(const Reaper&) = delete;

  // snapshots/<id> may go. Blocks on I/O only with the option `synchronous`.
  void Discard(uint64_t id);

  // Removes what rests, now, and without pauses.
  void Kick();

  // Waits until nothing is left to do, at most `limit`; whether that was reached.
  bool WaitIdle(std::chrono::milliseconds limit);

  // Directories that wait, and the failures so far (logged; tried again at the next start).
  struct Counts {
    size_t waiting = 0;
    uint64_t failed = 0;
  };
  [[nodiscard]] Counts counts() const;

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Item {
    uint64_t id;
    Time due;
    bool kicked = false;
  };

  void Run();
  bool Ready() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // What is to be done next: one item, or the predecessor's trash, which has no number.
  Item Take() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What comes of an entry that was in hand: a failure is logged and counted.
  void Note(const Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  [[nodiscard]] Status RemoveOne(uint64_t id) const;
  [[nodiscard]] Status EmptyTrash() const;

  const int snapshots_fd_;
  const int trash_fd_;
  const Options options_;
  CallContext stopping_;  // cancelled when this is to end

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<Item> items_ ABSL_GUARDED_BY(mutex_);
  bool stale_trash_ ABSL_GUARDED_BY(mutex_) = true;
  int busy_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t failed_ ABSL_GUARDED_BY(mutex_) = 0;

  std::vector<std::thread> threads_;  // last: they use all of the above
};

}  // namespace strata
