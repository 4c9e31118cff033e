// SPDX-License-Identifier: Apache-2.0
//
// ErofsPresenter: layers as the kernel's EROFS, mounted from their sparse image files while these
// are still being filled. Each image is marked in a fanotify group before it is mounted: whoever
// makes the kernel read a part of it waits until that part is there. Group and journal are kept by
// an FdStore, so that readers wait for a successor when this process dies, and do not see holes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "snapshotters/base/fd_store.h"
#include "snapshotters/base/status.h"
#include "snapshotters/lazy/image_files.h"
#include "snapshotters/lazy/presenter.h"
#include "snapshotters/lazy/space_reserve.h"

namespace strata {

struct ErofsOptions {
  std::string layers_directory;  // "<root>/layers": an image is <layers_directory>/<n>/image
  std::string probe_directory;   // made for the probe, on the same file system, and removed
  int threads = 0;               // that take events; 0: one for each CPU, at most 16
  uint32_t most_waiting = 4096;  // events taken and not answered; more wait in the kernel
  // Whether new layers may be shown. Otherwise this only goes on with what a predecessor showed.
  bool show_new = true;
};

struct ErofsCounters {
  uint64_t events = 0;
  uint64_t waited = 0;     // of them, those whose bytes were not there
  uint64_t denied = 0;     // answered with EIO
  uint64_t inherited = 0;  // left by a predecessor, taken over
  uint64_t marked = 0;     // images that are marked now
};

class ErofsPresenter : public Presenter {
 public:
  // Names in the FdStore.
  static constexpr const char* kGroupName = "fanotify";
  static constexpr const char* kJournalName = "journal";

  // All must outlive this. Goes on with the group that a predecessor kept, or else makes one, after
  // a probe: a small image with a hole, marked, mounted, read, and compared. From now on events are
  // taken; those of layers that are not known yet wait until Settled. Unimplemented: not here, and
  // the message says why (kernel, file system, no FdStore).
  static StatusOr<std::unique_ptr<ErofsPresenter>> Start(const ErofsOptions& options, FdStore& fds,
                                                         Filler& filler, SpaceReserve& reserve);
  // Takes no more events and returns when no answer is under way. Mounts, marks and the group stay;
  // what is not answered waits for a successor.
  ~ErofsPresenter() override = default;

  // For opening the images of layers, from the start on.
  [[nodiscard]] virtual ImageFiles& files() = 0;
  // Whether this began with a predecessor's group. If not, EROFS mounts of incomplete layers that
  // are found have been without one: what was read from them may have been zeros.
  [[nodiscard]] virtual bool inherited() const = 0;
  [[nodiscard]] virtual ErofsCounters counters() const = 0;
};

}  // namespace strata
