// SPDX-License-Identifier: Apache-2.0
//
// DecodePool: the threads that decode, verify and write spans, each with buffers of its own that
// are kept while there is work and given back soon after. Push is safe from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/fill_share.h"
#include "snapshotters/lazy/span_decoder.h"

namespace strata {

struct DecodeScratch {
  SpanDecoder decoder;
  DecodedBuffer buffer;
};

class DecodePool {
 public:
  using Job = std::function<void(DecodeScratch&)>;

  // 0: one thread for each CPU, at most 8.
  explicit DecodePool(int threads);
  ~DecodePool() { Stop(); }
  DecodePool(const DecodePool&) = delete;
  DecodePool& operator=(const DecodePool&) = delete;

  // Runs it soon, urgent classes first, the last ones now and then. Dropped after Stop.
  void Push(FillClass fill_class, Job job);
  // Drops what has not begun and waits for what has. Not from a job.
  void Stop();

 private:
  void Run();
  Job Take() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool empty() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  CondVar changed_;
  std::array<std::deque<Job>, kFillClasses> jobs_ ABSL_GUARDED_BY(mutex_);
  size_t taken_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t warm_ ABSL_GUARDED_BY(mutex_) = 0;  // threads that have buffers
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace strata
