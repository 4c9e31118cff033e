// SPDX-License-Identifier: Apache-2.0
//
// IncomingBlob: a blob that is read while it is still being written: one writer, any number of
// readers, all from any thread. Readers see its end only once it has been verified.
#pragma once

#include <cstddef>
#include <cstdint>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/call_context.h"

namespace strata {

class IncomingBlob {
 public:
  // Bytes of `file` that are there; more by Advance.
  void Begin(UniqueFd file, uint64_t available);
  void Advance(uint64_t available);
  // What was there is not valid any more: reads end with Aborted until Begin.
  void Restart();
  // The last call. OK: all is there and is what it should be.
  void End(Status status);

  // Waits for bytes behind `offset`; 0 at the end. What End was given, Cancelled, or Aborted: read
  // from the beginning again. `generation` is 0 at first, and is set then.
  StatusOr<size_t> Read(const CallContext& call, int& generation, uint64_t offset, char* buffer,
                        size_t size);
  // Whether End has been called with OK.
  [[nodiscard]] bool IsWhole();

 private:
  Mutex mutex_;
  CondVar changed_;
  UniqueFd file_ ABSL_GUARDED_BY(mutex_);
  uint64_t available_ ABSL_GUARDED_BY(mutex_) = 0;
  int generation_ ABSL_GUARDED_BY(mutex_) = 0;
  bool began_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace strata
