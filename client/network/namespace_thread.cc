// SPDX-License-Identifier: Apache-2.0
#include "client/network/namespace_thread.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {
namespace {

constexpr mode_t kFileMode = 0444;

Status OnThread(const std::function<Status()>& work) {
  Status status;
  std::thread thread([&] { status = work(); });
  thread.join();
  return status;
}

// Of the calling thread's namespace. Instead of the plugin "loopback", which does just this.
Status RaiseLoopback() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) {
    return ErrnoStatus(errno, "socket");
  }
  ifreq request{};
  std::strncpy(request.ifr_name, "lo", IFNAMSIZ - 1);
  if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) {
    return ErrnoStatus(errno, "look at 'lo'");
  }
  request.ifr_flags = static_cast<int16_t>(request.ifr_flags | IFF_UP);
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) {
    return ErrnoStatus(errno, "raise 'lo'");
  }
  return OkStatus();
}

}  // namespace

Status RunInNetworkNamespace(const std::string& path, const std::function<Status()>& work) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  return OnThread([&]() -> Status {
    if (::setns(fd.get(), CLONE_NEWNET) != 0) {
      return ErrnoStatus(errno, "enter the network namespace " + ShowName(path));
    }
    return work();
  });
}

Status MakeNetworkNamespace(const std::string& directory, const std::string& name) {
  const std::string path = directory + "/" + name;
  STRATA_RETURN_IF_ERROR(OpenFile(path, O_WRONLY | O_CREAT | O_EXCL, kFileMode).status());
  Status made = OnThread([&]() -> Status {
    if (::unshare(CLONE_NEWNET) != 0) {
      return ErrnoStatus(errno, "make a network namespace");
    }
    STRATA_RETURN_IF_ERROR(RaiseLoopback());
    const Mount bind = {
        .type = "bind",
        .source = "/proc/self/task/" + std::to_string(::gettid()) + "/ns/net",
        .target = name,
        .options = {"bind"},
    };
    return MountAll({&bind, 1}, directory);
  });
  if (!made.ok()) {
    (void)::unlink(path.c_str());  // the first error is the one to report
  }
  return made;
}

bool IsNamespaceFile(const std::string& path) {
  struct statfs found {};
  return ::statfs(path.c_str(), &found) == 0 && found.f_type == NSFS_MAGIC;
}

Status RemoveNamespaceFile(const std::string& path) {
  while (IsNamespaceFile(path)) {
    STRATA_RETURN_IF_ERROR(Unmount(path, /*lazy=*/true));
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, "remove " + ShowName(path));
  }
  return OkStatus();
}

}  // namespace strata
