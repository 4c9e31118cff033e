// SPDX-License-Identifier: Apache-2.0
//
// FuseReads: the reads of one FUSE mount that wait for the Filler. A read that waits occupies no
// thread: it is answered from the filler's callback. Safe from any thread; shared with the
// callbacks, which may come after the mount is gone and then do nothing.
#pragma once

#include <absl/base/thread_annotations.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>

#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/fuse_session.h"

namespace strata {

// FuseCounters, counted.
struct FuseCounts {
  std::atomic<uint64_t> lookups{0};
  std::atomic<uint64_t> getattrs{0};
  std::atomic<uint64_t> readdirs{0};
  std::atomic<uint64_t> readlinks{0};
  std::atomic<uint64_t> getxattrs{0};
  std::atomic<uint64_t> reads{0};
  std::atomic<uint64_t> read_bytes{0};
  std::atomic<uint64_t> errors{0};
};

class FuseReads : public std::enable_shared_from_this<FuseReads> {
 public:
  explicit FuseReads(std::shared_ptr<FuseCounts> counts) : counts_(std::move(counts)) {}

  // Answers `request` with [offset, offset + bytes) of the layer's image, now or later; on any
  // error with EIO.
  void Read(Filler& filler, const std::shared_ptr<FillLayer>& layer, uint64_t offset, size_t bytes,
            fuse_req_t request);

  // What waits, and what still comes, is answered with EIO, or, where a successor will be asked
  // again, not at all. When this returns no reply is under way.
  void Close(bool has_successor);

 private:
  // From Admit to Claim a request waits; from Claim to Settle its reply is under way. Nothing: it
  // was answered.
  std::optional<uint64_t> Admit(fuse_req_t request);
  std::optional<fuse_req_t> Claim(uint64_t ticket);
  void Settle();
  void Fail(fuse_req_t request);
  // After Close.
  void Reject(fuse_req_t request);
  // At most one a second.
  void Log(const Status& status);
  void Reply(fuse_req_t request, int image_fd, uint64_t offset, size_t bytes, const HeldBytes* held,
             bool may_splice);

  const std::shared_ptr<FuseCounts> counts_;
  std::atomic<int64_t> last_log_{-1};  // second of the steady clock
  Mutex mutex_;
  CondVar settled_;
  std::unordered_map<uint64_t, fuse_req_t> waiting_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<bool> has_successor_{false};
};

}  // namespace strata
