// SPDX-License-Identifier: Apache-2.0
//
// SpareDirectories: numbered snapshot directories made ahead of need, already durable, so that a
// Prepare pays for neither mkdir nor fsync. One thread makes them, many at a time, with one fsync.
// Safe from any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"

namespace strata {

class SpareDirectories {
 public:
  struct Folder {
    std::string name;
    mode_t mode;
  };
  // What one kind of snapshot directory looks like: snapshots/<id> with `mode`, and folders inside.
  struct Shape {
    mode_t mode = 0700;
    std::vector<Folder> folders;
  };

  // At most this many of a shape wait, unused. A spare of an overlay takes three inodes.
  static constexpr size_t kMost = 128;

  // `snapshots_fd` and what `next_id` uses must outlive this. Nothing is made before the first Take
  // of a shape.
  SpareDirectories(int snapshots_fd, std::function<StatusOr<uint64_t>()> next_id,
                   std::vector<Shape> shapes);

  // Removes the spares.
  ~SpareDirectories();

  SpareDirectories(const SpareDirectories&) = delete;
  SpareDirectories& operator=(const SpareDirectories&) = delete;

  // A directory of shape number `shape` whose number nobody had before. It exists on disk: a crash
  // of the machine does not undo it. Waits for the maker when there is none; its failure (ENOSPC)
  // is the result.
  StatusOr<uint64_t> Take(size_t shape);

 private:
  struct Pool {
    Shape shape;
    std::deque<uint64_t> ready;
    size_t target = 0;      // spares to keep; grows when callers had to wait
    size_t waiting = 0;     // callers in Take
    uint64_t failures = 0;  // batches that failed: what waiting callers compare
    Status failure;         // of the last one
    bool scarce = false;    // the last batch did not come out whole
    bool failed = false;    // no further try until the next Take
  };

  void Run();
  // A pool that lacks spares, nullptr when none does.
  Pool* Hungry() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  StatusOr<std::vector<uint64_t>> MakeBatch(const Shape& shape, size_t count) const;
  [[nodiscard]] Status MakeOne(const Shape& shape, uint64_t id) const;
  void RemoveOne(const Shape& shape, uint64_t id) const;

  const int snapshots_fd_;
  const std::function<StatusOr<uint64_t>()> next_id_;

  Mutex mutex_;
  CondVar wanted_;  // the maker waits here
  CondVar made_;    // callers wait here
  std::vector<Pool> pools_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace strata
