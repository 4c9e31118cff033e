// SPDX-License-Identifier: Apache-2.0
//
// ErofsFiles: opens the images of layers where some of them are marked in a fanotify group that we
// serve ourselves. A descriptor that is opened while a file is marked makes its own reads wait for
// us; the descriptors that events carry do not. So each image that is opened is read once, and if
// an event comes of that, its descriptor is the one that is returned. Safe from any thread.
#pragma once

#include <absl/base/thread_annotations.h>
#include <sys/types.h>

#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/lazy/image_files.h"
#include "snapshotters/os/fanotify_group.h"

namespace strata {

class ErofsFiles final : public ImageFiles {
 public:
  // An image that turned out to be marked when it was opened.
  struct Marked {
    InodeKey inode;
    UniqueFd directory;
    UniqueFd image;  // raises no events
  };

  ErofsFiles();

  // Event threads run while this is called.
  StatusOr<UniqueFd> Open(int directory_fd, const std::string& name) override;

  // An event thread has taken this one. True: it is of a read of Open's, and may be allowed.
  bool IsOurs(const InodeKey& inode, const FanotifyGroup::Event& event) {
    return opening_count_.load(std::memory_order_acquire) != 0 && Adopt(inode, event);
  }

  // Whether the image was opened and is marked.
  [[nodiscard]] bool WasMarked(const InodeKey& inode) const;
  // All of those; from now on none is remembered.
  std::vector<Marked> TakeMarked();

 private:
  struct Opening {
    bool came = false;
    UniqueFd adopted;
  };

  bool Adopt(const InodeKey& inode, const FanotifyGroup::Event& event);
  StatusOr<UniqueFd> AdoptByRead(const InodeKey& inode, UniqueFd plain, const std::string& name);
  Status Remember(const InodeKey& inode, int directory_fd, int image_fd);

  const pid_t own_pid_;
  std::atomic<int> opening_count_{0};
  mutable Mutex mutex_;
  CondVar changed_;
  std::map<InodeKey, Opening> opening_ ABSL_GUARDED_BY(mutex_);
  bool remembers_ ABSL_GUARDED_BY(mutex_) = true;
  std::map<InodeKey, Marked> marked_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace strata
