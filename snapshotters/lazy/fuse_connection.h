// SPDX-License-Identifier: Apache-2.0
//
// FuseConnection: what a FUSE mount is to the process that serves it, before anybody serves: its
// device, the kernel's INIT request, and which mount it is. A connection outlives its process when
// it is kept in an FdStore: then the kernel's requests wait for the successor. No libfuse. For one
// thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "snapshotters/base/fd_store.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class FuseConnection {
 public:
  // The largest request: 256 pages, which is what Linux and libfuse have as their limit.
  static constexpr uint32_t kMaxRequestBytes = uint32_t{1} << 20;

  // Mounts on `mountpoint` (absolute, an existing directory), read-only, and reads the INIT
  // request, which waits for its answer. Unimplemented: no FUSE here.
  static StatusOr<FuseConnection> Open(const std::string& mountpoint);

  // What a predecessor kept as `name`. NotFound: nothing. Other errors: it is not what is mounted
  // on `mountpoint` any more, or nothing that this version could serve; Drop it and Open anew. The
  // mount is not asked for anything: nobody may be there to answer.
  static StatusOr<FuseConnection> Take(FdStore& store, const std::string& name,
                                       const std::string& mountpoint);

  // For a successor to Take, as `name` and `name`-init. Not both at once: Drop what is there first.
  [[nodiscard]] Status Keep(FdStore& store, const std::string& name) const;
  static void Drop(FdStore& store, const std::string& name);

  // Whether a successor can have the requests that its predecessor has read (Linux 6.9).
  [[nodiscard]] bool can_resend() const;
  [[nodiscard]] bool is_resumed() const { return is_resumed_; }  // from Take
  [[nodiscard]] const std::string& init() const { return init_; }
  [[nodiscard]] dev_t mount_device() const { return mount_device_; }  // its st_dev
  [[nodiscard]] int device() const { return device_.get(); }
  [[nodiscard]] int ReleaseDevice() { return device_.Release(); }

 private:
  FuseConnection() = default;
  // Whether `init_` is such a request as this version answers.
  [[nodiscard]] Status CheckInit() const;
  [[nodiscard]] Status CheckMount(const std::string& mountpoint) const;

  UniqueFd device_;
  std::string init_;  // as the kernel sent it
  dev_t mount_device_ = 0;
  bool is_resumed_ = false;
};

// Lets the kernel send every request again that was read and has no answer yet (FUSE_NOTIFY_RESEND,
// Linux 6.9).
Status ResendRequests(int device);

}  // namespace strata
