// SPDX-License-Identifier: Apache-2.0
//
// SpaceReserve: room on the disk for the bytes of layers that the kernel reads by itself: those can
// be served from nowhere else, so a full disk must not keep them from being written. The room is a
// file of its own that is allocated and becomes smaller as the layers fill; when the disk is full,
// what it has is given to who writes. Safe from any thread; Reserve, Yield and Trim use the disk.
#pragma once

#include <absl/base/thread_annotations.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class SpaceReserve {
 public:
  // `path`: the file, absolute; made if it is missing, and as long as it was until the first
  // Reserve or Trim.
  static StatusOr<std::unique_ptr<SpaceReserve>> Open(const std::string& path);
  SpaceReserve(const SpaceReserve&) = delete;
  SpaceReserve& operator=(const SpaceReserve&) = delete;

  // Room for `bytes` more of the layer. ResourceExhausted: the disk has not as much; nothing has
  // changed.
  Status Reserve(uint64_t layer, uint64_t bytes);
  // So much of the layer was written. Less than nothing is nothing.
  void Used(uint64_t layer, uint64_t bytes);
  // The layer needs none any more.
  void Release(uint64_t layer);
  // A write of `bytes` found the disk full: makes the file smaller by at least that. False: there
  // is nothing left to give.
  bool Yield(uint64_t bytes);
  // Gives back what is no longer reserved, in large steps; cheap when there is nothing to do. To be
  // called now and then.
  void Trim();

  [[nodiscard]] uint64_t reserved() const;  // bytes, of all layers

 private:
  explicit SpaceReserve(UniqueFd file) : file_(std::move(file)) {}

  const UniqueFd file_;
  Mutex disk_mutex_;  // held while the file changes its length; the only lock held across I/O here
  mutable Mutex mutex_;
  std::map<uint64_t, uint64_t> layers_ ABSL_GUARDED_BY(mutex_);  // bytes, by number
  uint64_t file_bytes_ ABSL_GUARDED_BY(disk_mutex_) = 0;
};

}  // namespace strata
