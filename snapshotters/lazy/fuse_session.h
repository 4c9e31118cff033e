// SPDX-License-Identifier: Apache-2.0
//
// FuseSession: the threads that serve one FUSE mount. The only file that includes libfuse; what
// answers the requests gets it from here. Safe from any thread.
#pragma once

#include <absl/base/thread_annotations.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/lazy/fuse_connection.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {

class FuseSession {
 public:
  // Whether `user` can answer for `node` already; of a look-up, for `name` in it.
  using KnowsCallback = bool (*)(void* user, fuse_ino_t node, std::string_view name);

  struct Options {
    std::string mountpoint;  // of the connection
    int threads = 2;
    uint64_t read_ahead_bytes = uint64_t{1} << 20;
    bool posix_acl = false;     // the kernel asks for ACLs and enforces them
    bool asks_to_open = false;  // for each file: not all are opened alike
    // Of a resumed connection, until Settle: what is asked about nodes of which this says false is
    // answered later.
    KnowsCallback knows = nullptr;
  };

  // Serves `operations` (without init, which is this class's own; with lookup) until the end.
  // `user` is what UserOf() gives, and must outlive this. Returns when the kernel and the session
  // have agreed. When it fails the mount is detached.
  static StatusOr<std::unique_ptr<FuseSession>> Start(const Options& options,
                                                      FuseConnection connection,
                                                      fuse_lowlevel_ops operations, void* user);
  // Ends the threads and closes the device. The mount is detached, unless LeaveMount was called:
  // then it fails requests without a reply, and whatever comes by mounts bound from this one,
  // unless the device is kept. No reply may be under way any more.
  ~FuseSession();
  FuseSession(const FuseSession&) = delete;
  FuseSession& operator=(const FuseSession&) = delete;

  void LeaveMount() { mount_.Detach(); }
  // Everything is known that ever will be.
  void Settle();

  // The kernel drops what it keeps about `name` in the mount's top directory, and all below that
  // nobody uses. Not from a thread that answers requests: the kernel may wait for an answer first.
  void ForgetName(const std::string& name);
  // Whether the kernel has the node: somebody uses it, or something below it.
  [[nodiscard]] bool IsInUse(fuse_ino_t node);
  [[nodiscard]] bool is_resumed() const { return is_resumed_; }
  [[nodiscard]] dev_t mount_device() const { return mount_device_; }

  static void* UserOf(fuse_req_t request) { return Of(request).user_; }
  // Whether the kernel takes ENOSYS from open and opendir for "always yes, and keep the caches".
  static bool NeedsNoOpen(fuse_req_t request) { return Of(request).no_open_.load(); }
  static bool NeedsNoOpenDir(fuse_req_t request) { return Of(request).no_opendir_.load(); }

 private:
  FuseSession(const Options& options, const FuseConnection& connection, void* user)
      : knows_(options.knows),
        user_(user),
        mount_device_(connection.mount_device()),
        mount_(options.mountpoint),
        posix_acl_(options.posix_acl),
        asks_to_open_(options.asks_to_open),
        is_resumed_(connection.is_resumed()),
        settled_(!is_resumed_) {}
  static FuseSession& Of(fuse_req_t request) {
    return *static_cast<FuseSession*>(::fuse_req_userdata(request));
  }
  Status Agree(const Options& options, FuseConnection connection, fuse_lowlevel_ops operations);
  Status Serve(const Options& options);
  void Negotiate(fuse_conn_info& connection);
  void Work();
  // Whether the request is for later.
  bool PutOff(std::span<const char> request);
  void EndThreads();

  const KnowsCallback knows_;
  void* const user_;
  const dev_t mount_device_;
  ScopedMount mount_;
  fuse_session* session_ = nullptr;                       // owns the device
  decltype(fuse_lowlevel_ops::lookup) lookup_ = nullptr;  // of the operations
  std::vector<std::thread> threads_;
  Mutex settle_mutex_;
  UniqueFd top_;  // of the mount, whatever becomes of its path
  std::atomic<int> working_{0};
  const bool posix_acl_;
  const bool asks_to_open_;
  const bool is_resumed_;
  bool agreed_ = false;  // set before there are threads
  std::atomic<bool> ending_{false};
  std::atomic<bool> no_open_{false};
  std::atomic<bool> no_opendir_{false};
  std::atomic<bool> settled_;
  bool has_put_off_ ABSL_GUARDED_BY(settle_mutex_) = false;
};

}  // namespace strata
