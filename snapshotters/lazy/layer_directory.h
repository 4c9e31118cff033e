// SPDX-License-Identifier: Apache-2.0
//
// LayerDirectory: the folder <root>/layers: a folder <n> for each layer, what is set aside
// (bad-<n>) or about to be removed (trash-...), and the file `next`, below which all numbers have
// been given out. Safe from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "snapshotters/base/clock.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class LayerDirectory {
 public:
  // Makes `path` if it is missing. Folders that a crash left half made become trash.
  static StatusOr<std::unique_ptr<LayerDirectory>> Open(const std::string& path);
  // Writes down which number is next, so that none is passed over.
  ~LayerDirectory();
  LayerDirectory(const LayerDirectory&) = delete;
  LayerDirectory& operator=(const LayerDirectory&) = delete;

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const std::string& path() const { return path_; }
  // The layers that were there when it was opened, in order.
  [[nodiscard]] const std::vector<uint64_t>& found() const { return found_; }

  // A number that no layer ever had here. Numbers are set aside on disk in batches: a crash skips
  // the rest of one.
  StatusOr<uint64_t> TakeNumber();

  // The layer does not hold: its folder becomes bad-<n>, of which the latest few are kept.
  Status SetAside(uint64_t number);
  [[nodiscard]] bool IsSetAside(uint64_t number) const;

  // The layer's folder becomes trash, in one step.
  Status Discard(uint64_t number);
  // Removes all trash.
  Status EmptyTrash();

  // When the layer was used last, as NoteUse wrote it (at first: when it was made).
  StatusOr<TimeNs> LastUse(uint64_t number) const;
  Status NoteUse(uint64_t number, TimeNs time) const;

 private:
  LayerDirectory() = default;
  Status Scan();
  Status ReadNext(uint64_t lowest);
  Status Trash(const std::string& name);

  std::string path_;
  UniqueFd fd_;
  std::vector<uint64_t> found_;

  mutable Mutex mutex_;
  CondVar changed_;
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t limit_ ABSL_GUARDED_BY(mutex_) = 1;  // `next` on disk
  bool extending_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<uint64_t> set_aside_ ABSL_GUARDED_BY(mutex_);
  uint64_t trashed_ ABSL_GUARDED_BY(mutex_) = 0;  // makes names of trash differ
};

}  // namespace strata
