// SPDX-License-Identifier: Apache-2.0
//
// FusePresenter: layers through FUSE. At most two mounts serve all layers: one for layers with
// xattrs and one that answers ENOSYS to every question about them, which the kernel then remembers
// for the connection. Node ids are layer number << 40 | EROFS nid, so that nothing has to be
// remembered about what the kernel has looked up. Works in a user namespace.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "snapshotters/base/fd_store.h"
#include "snapshotters/base/status.h"
#include "snapshotters/lazy/presenter.h"

namespace strata {

struct FuseOptions {
  // Absolute and existing; the two mounts are made in it, in folders of their own (`x`: with
  // xattrs, `p`: plain). A mount that a predecessor left there goes on where `fds` has its device
  // (then requests for layers wait for Resume, or Settled); else it is detached first.
  std::string directory;
  int threads = 2;                                // of each mount
  uint64_t read_ahead_bytes = uint64_t{1} << 20;  // of the kernel; set where we may
  // Where the mounts' devices are kept for a successor; must outlive the presenter. Null, or not
  // available: the mounts end with this process.
  FdStore* fds = nullptr;
  // Layers have a file that tells their state (layer_state_file.h). In mounts that a predecessor
  // left without, it may show what was there when it was read first.
  bool state_files = false;
};

struct FuseCounters {
  uint64_t lookups = 0;
  uint64_t getattrs = 0;
  uint64_t readdirs = 0;
  uint64_t readlinks = 0;
  uint64_t getxattrs = 0;
  uint64_t reads = 0;
  uint64_t read_bytes = 0;
  uint64_t errors = 0;  // answers with EIO
};

class FusePresenter : public Presenter {
 public:
  // `filler` must outlive this. Unimplemented: no FUSE here (/dev/fuse is missing or forbidden).
  static StatusOr<std::unique_ptr<FusePresenter>> Start(const FuseOptions& options, Filler& filler);
  [[nodiscard]] virtual FuseCounters counters() const = 0;
  // The destructor ends the sessions. With stays(), the mounts and whatever waits for an answer are
  // left to the successor; else mounts are detached, and reads that wait fail with EIO.
};

}  // namespace strata
