// SPDX-License-Identifier: Apache-2.0
//
// SpaceReserve: room on the disk for the bytes of layers that the kernel reads by itself: those can
// be served from nowhere else, so a full disk must not keep them from being written. The room is a
// file of its own that is allocated and becomes smaller as the layers fill; when the disk is full,
// what it has is given to who writes. Safe from any thread; all that is not const uses the disk.
#pragma once

#include <absl/base/thread_annotations.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

// The file holds what is reserved and a 64th more, for what the file systems keep of the layers'
// extents. Its contents are never read and it is never synced: after a crash it is as long as it
// happens to be, and whoever starts next reserves anew before anything is given back.
class SpaceReserve {
 public:
  // The file becomes smaller in steps of at least this.
  static constexpr uint64_t kTrimBytes = uint64_t{4} << 20;
  // Of the disk, within these bounds, a hundredth is left to others by Reserve: to metadata, the
  // upper directories of overlays, the layers' own tables.
  static constexpr uint64_t kLeastMargin = uint64_t{8} << 20;
  static constexpr uint64_t kMostMargin = uint64_t{256} << 20;

  // `path`: the file, absolute; made if it is missing, and at least as long as it was until
  // Settled or a Yield. One that has holes holds no room, and is emptied.
  static StatusOr<std::unique_ptr<SpaceReserve>> Open(const std::string& path);
  SpaceReserve(const SpaceReserve&) = delete;
  SpaceReserve& operator=(const SpaceReserve&) = delete;

  // Room for `bytes` more of the layer, in whole blocks of the file system
  // (LayerImage::AbsentBytes). ResourceExhausted: the disk has not as much, or its file system
  // cannot set room aside; nothing has changed.
  Status Reserve(uint64_t layer, uint64_t bytes);
  // All layers of a predecessor are reserved again: what nobody reserved may be given back from
  // now on.
  void Settled();
  // So much of the layer was written. Less than nothing is nothing.
  void Used(uint64_t layer, uint64_t bytes);
  // The layer needs none any more.
  void Release(uint64_t layer);
  // A write of `bytes` found the disk full: makes the file smaller by at least that, or by all that
  // it has. False: there was nothing left to give. Others may be faster than the caller to take
  // what was given: he asks again then. For layers with a reservation only, or the rest goes short.
  bool Yield(uint64_t bytes);
  // Whether the disk has hardly more than what is set aside: something had to be given away, and
  // there is no room beyond the margin yet. Who has nothing reserved must not write then: he would
  // take what was given to others. Cheap.
  [[nodiscard]] bool IsPressed();
  // Takes again what was given away, as far as the disk has it, and gives back what Used and
  // Release could not, because the file was in use; cheap when there is nothing to do. To be called
  // now and then.
  void Restore();

  [[nodiscard]] uint64_t reserved() const;                // bytes, of all layers
  [[nodiscard]] uint64_t reserved(uint64_t layer) const;  // what is left of it

 private:
  explicit SpaceReserve(UniqueFd file) : file_(std::move(file)) {}
  // How long the file has to be now.
  [[nodiscard]] uint64_t Wanted() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex_);
  Status Measure() ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex_);
  // How much the file may grow.
  [[nodiscard]] StatusOr<uint64_t> Room() const;
  Status GrowTo(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex_);
  Status ShrinkTo(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex_);
  // Gives back what is no longer reserved, unless it is too little.
  void Trim() ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex_);
  // The same, unless somebody else is at the file.
  void TrimIfFree();

  const UniqueFd file_;
  std::atomic<bool> pressed_{false};
  // Held while the file changes its length; the only lock held across I/O here. Before mutex_.
  Mutex disk_mutex_;
  mutable Mutex mutex_;
  std::map<uint64_t, uint64_t> layers_ ABSL_GUARDED_BY(mutex_);  // bytes, by number
  uint64_t reserved_ ABSL_GUARDED_BY(mutex_) = 0;                // of all
  bool settled_ ABSL_GUARDED_BY(disk_mutex_) = false;
  uint64_t file_bytes_ ABSL_GUARDED_BY(disk_mutex_) = 0;
  // What is allocated, and given back, as one.
  uint64_t grain_bytes_ ABSL_GUARDED_BY(disk_mutex_) = 0;
};

}  // namespace strata
