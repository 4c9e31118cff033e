// SPDX-License-Identifier: Apache-2.0
//
// FuseSession: one FUSE mount, its device and the threads that read from it. The only file that
// includes libfuse; what answers the requests gets it from here. Safe from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {

class FuseSession {
 public:
  // The largest request: 256 pages, which is what Linux and libfuse have as their limit.
  static constexpr uint32_t kMaxRequestBytes = uint32_t{1} << 20;

  struct Options {
    std::string mountpoint;  // absolute, an existing directory
    int threads = 2;
    uint64_t read_ahead_bytes = uint64_t{1} << 20;
    bool posix_acl = false;  // the kernel asks for ACLs and enforces them
  };

  // Mounts, read-only, and serves `operations` (without init, which is this class's own; with
  // lookup) until the end. `user` is what UserOf() gives, and must outlive this. Returns when the
  // kernel and the session have agreed. Unimplemented: no FUSE here.
  static StatusOr<std::unique_ptr<FuseSession>> Start(const Options& options,
                                                      fuse_lowlevel_ops operations, void* user);
  // Detaches the mount, ends the threads, closes the device: requests without a reply fail, and so
  // does whatever comes by mounts bound from this one. No reply may be under way any more.
  ~FuseSession();
  FuseSession(const FuseSession&) = delete;
  FuseSession& operator=(const FuseSession&) = delete;

  // The kernel drops what it keeps about `name` in the mount's top directory, and all below that
  // nobody uses. Not from a thread that answers requests: the kernel may wait for an answer first.
  void ForgetName(const std::string& name);

  static void* UserOf(fuse_req_t request) { return Of(request).user_; }
  // Whether the kernel takes ENOSYS from open and opendir for "always yes, and keep the caches".
  static bool NeedsNoOpen(fuse_req_t request) { return Of(request).no_open_.load(); }
  static bool NeedsNoOpenDir(fuse_req_t request) { return Of(request).no_opendir_.load(); }

 private:
  FuseSession(bool posix_acl, void* user) : posix_acl_(posix_acl), user_(user) {}
  static FuseSession& Of(fuse_req_t request) {
    return *static_cast<FuseSession*>(::fuse_req_userdata(request));
  }
  Status Mount(const Options& options, fuse_lowlevel_ops operations);
  Status Serve(const Options& options);
  void Negotiate(fuse_conn_info& connection);
  void EndLoop();

  const bool posix_acl_;
  void* const user_;
  decltype(fuse_lowlevel_ops::lookup) lookup_ = nullptr;  // of the operations
  std::atomic<bool> ending_{false};
  std::atomic<bool> no_open_{false};
  std::atomic<bool> no_opendir_{false};
  ScopedMount mount_;
  UniqueFd top_;                     // of the mount, whatever becomes of its path
  fuse_session* session_ = nullptr;  // owns the device
  std::thread loop_;
};

}  // namespace strata
