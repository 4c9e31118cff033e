// SPDX-License-Identifier: Apache-2.0
//
// Mounts as data made real: what a Snapshotter returned is mounted as containerd's mounter would
// (tests, probes, and the worker). Stateless; safe from any thread (a thread of its own is used
// where the working directory must change).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

// Mounts `mounts` in order on `target` (an existing absolute directory). Types bind, any kernel
// file system, and "fuse3.X" (MountByHelper); options as containerd understands them: flags (ro rw
// bind rbind nosuid nodev noexec noatime ... sync dirsync remount), everything else is data for the
// file system. A read-only bind is a bind plus a remount that keeps the locked flags. Overlay
// options that do not fit one page (4,096 bytes, mount(2)) are given by the mount API, one fsconfig
// "lowerdir+" a layer (Linux 6.8), or, where the kernel lacks it, relative to the directory that
// all layers share. On failure what this call has mounted is unmounted again.
Status MountAll(std::span<const Mount> mounts, const std::string& target);

// umount2(2); `lazy` adds MNT_DETACH. A target that is not a mount point is NotFound.
Status Unmount(const std::string& target, bool lazy);

// Owns one mount point: the destructor detaches it lazily, with what is mounted below it, and logs
// a failure.
class ScopedMount {
 public:
  ScopedMount() = default;
  explicit ScopedMount(std::string target) : target_(std::move(target)) {}
  ~ScopedMount();
  ScopedMount(ScopedMount&& other) noexcept;
  ScopedMount& operator=(ScopedMount&& other) noexcept;
  ScopedMount(const ScopedMount&) = delete;
  ScopedMount& operator=(const ScopedMount&) = delete;

  // Exactly one of `mounts` has an empty target, else InvalidArgument: mounts that cover one
  // another would each need an unmount.
  static StatusOr<ScopedMount> Mount(std::span<const strata::Mount> mounts,
                                     const std::string& target);

  // Unmounts now, not lazily; keeps owning on failure.
  Status Unmount();
  // Leaves the mount for somebody else.
  void Detach() { target_.clear(); }
  [[nodiscard]] const std::string& target() const { return target_; }

 private:
  std::string target_;
};

}  // namespace strata
