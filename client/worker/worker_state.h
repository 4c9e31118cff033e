// SPDX-License-Identifier: Apache-2.0
//
// WorkerState: the folder `<root>/runc-<snapshotter>` of a worker (worker-parity 2.1), shared by
// all processes that are this worker now. Safe from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "client/file_lock.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/call_context.h"

namespace strata {

class WorkerState {
 public:
  // Ids of the host that have to get to executor(): root's of the containers, where those are
  // mapped.
  struct Guest {
    uint32_t uid = 0;
    uint32_t gid = 0;
  };

  // Makes what is missing, and the worker's id the first time. Folders have mode 0700, with a guest
  // 0711. InvalidArgument: a name that is no folder's. FailedPrecondition: a BuildKit daemon is on
  // the root, or a folder that leads there is closed to the guest.
  static StatusOr<std::unique_ptr<WorkerState>> Open(const std::string& root,
                                                     const std::string& snapshotter,
                                                     const std::optional<Guest>& guest = {});

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const std::string& worker_id() const { return worker_id_; }  // 25 letters, digits
  [[nodiscard]] std::string snapshots() const { return path_ + "/snapshots"; }
  [[nodiscard]] std::string content() const { return path_ + "/content"; }
  [[nodiscard]] std::string executor() const { return path_ + "/executor"; }
  [[nodiscard]] std::string holds() const { return path_ + "/holds"; }
  [[nodiscard]] std::string network() const { return root_; }

  // One of `slots` places of those that run at the same time; 0: always. Waits for one until
  // `timeout` (DeadlineExceeded) or until `call` is cancelled. Given back with the lock.
  StatusOr<std::optional<FileLock>> TakeSlot(CallContext& call, int slots,
                                             std::chrono::milliseconds timeout);

  // Whether it is time for garbage collection: true once a minute at most, of all processes
  // together. Holds off the others while it lives.
  StatusOr<std::optional<FileLock>> TakeCollection();

 private:
  WorkerState(std::string root, std::string path, UniqueFd fd)
      : root_(std::move(root)), path_(std::move(path)), fd_(std::move(fd)) {}
  Status KeepBuildKitOut();
  Status ReadOrMakeId();

  const std::string root_;
  const std::string path_;
  UniqueFd fd_;
  UniqueFd root_lock_;
  std::string worker_id_;
};

}  // namespace strata
