// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/overlay_probe.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <string_view>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/mount_ops.h"
#include "snapshotters/os/probe_directory.h"

namespace strata {
namespace {

constexpr size_t kReadBytes = 4096;

// Two lower layers, an upper and a work directory in `probe`, mounted on its "merged".
StatusOr<ScopedMount> MountOverlay(const ProbeDirectory& probe,
                                   const std::vector<std::string>& more_options) {
  for (const char* name : {"lower1", "lower2", "upper", "work", kProbeMountPoint}) {
    STRATA_RETURN_IF_ERROR(MakeDirAt(probe.fd(), name, 0755));
  }
  Mount mount{"overlay", "overlay", "", more_options};
  mount.options.push_back("lowerdir=" + probe.Join("lower2") + ":" + probe.Join("lower1"));
  mount.options.push_back("upperdir=" + probe.Join("upper"));
  mount.options.push_back("workdir=" + probe.Join("work"));
  return ScopedMount::Mount({&mount, 1}, probe.Join(kProbeMountPoint));
}

bool KernelIsAtLeast(int major, int minor) {
  struct utsname name {};
  int have_major = 0;
  int have_minor = 0;
  if (::uname(&name) != 0 || std::sscanf(name.release, "%d.%d", &have_major, &have_minor) != 2) {
    return false;
  }
  return have_major > major || (have_major == major && have_minor >= minor);
}

}  // namespace

StatusOr<bool> SupportsDType(const std::string& directory) {
  STRATA_ASSIGN_OR_RETURN(const ProbeDirectory probe, ProbeDirectory::Create(directory));
  STRATA_RETURN_IF_ERROR(OpenAt(probe.fd(), "file", O_WRONLY | O_CREAT | O_EXCL, 0600).status());
  // Opened anew: btrfs shows a descriptor only what was there when it was opened.
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenAt(probe.fd(), ".", O_RDONLY | O_DIRECTORY));
  alignas(dirent64) char buffer[kReadBytes];
  while (true) {
    const ssize_t count = ::getdents64(fd.get(), buffer, sizeof(buffer));
    if (count < 0) {
      return ErrnoStatus(errno, "read directory " + ShowName(probe.Join("")));
    }
    if (count == 0) {
      return MakeStatus(StatusCode::kFailedPrecondition,
                        "read directory " + ShowName(probe.Join("")) +
                            ": a file that was just made is not there");
    }
    for (ssize_t offset = 0; offset < count;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer + offset);
      offset += entry->d_reclen;
      if (std::string_view(entry->d_name) == "file") {
        return entry->d_type != DT_UNKNOWN;
      }
    }
  }
}

Status ProbeOverlay(const std::string& directory, const std::vector<std::string>& more_options) {
  STRATA_ASSIGN_OR_RETURN(const bool needs_user_xattr, NeedsUserXattr(directory));
  STRATA_ASSIGN_OR_RETURN(const ProbeDirectory probe, ProbeDirectory::Create(directory));
  std::vector<std::string> options = more_options;
  if (needs_user_xattr && std::find(options.begin(), options.end(), "userxattr") == options.end()) {
    options.emplace_back("userxattr");
  }
  STRATA_ASSIGN_OR_RETURN(ScopedMount merged, MountOverlay(probe, options));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd written,
                          OpenFile(probe.Join("merged/file"), O_WRONLY | O_CREAT | O_EXCL, 0600));
  STRATA_RETURN_IF_ERROR(WriteAll(written.get(), "probe", "merged/file"));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd upper, OpenAt(probe.fd(), "upper", O_PATH | O_DIRECTORY));
  STRATA_ASSIGN_OR_RETURN(const std::string found, ReadFileAt(upper.get(), "file", 64));
  if (found != "probe") {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "overlay in " + ShowName(directory) +
                          ": what is written through it is not in its upper layer");
  }
  return OkStatus();
}

bool RunningInUserNamespace() {
  const StatusOr<std::string> map = ReadFileAt(AT_FDCWD, "/proc/self/uid_map", kReadBytes);
  uint64_t inside = 0;
  uint64_t outside = 0;
  uint64_t length = 0;
  if (!map.ok() || std::sscanf(map->c_str(), "%" SCNu64 " %" SCNu64 " %" SCNu64, &inside, &outside,
                               &length) != 3) {
    // No /proc or no user namespaces: then there is only the initial one.
    return false;
  }
  return inside != 0 || outside != 0 || length != 4294967295;
}

StatusOr<bool> NeedsUserXattr(const std::string& directory) {
  if (!RunningInUserNamespace()) {
    return false;
  }
  struct statfs stat {};
  if (::statfs(directory.c_str(), &stat) != 0) {
    return ErrnoStatus(errno, "statfs " + ShowName(directory));
  }
  if (stat.f_type == TMPFS_MAGIC) {
    return false;
  }
  if (KernelIsAtLeast(5, 11)) {
    return true;
  }
  STRATA_ASSIGN_OR_RETURN(const ProbeDirectory probe, ProbeDirectory::Create(directory));
  return MountOverlay(probe, {"ro", "userxattr"}).ok();
}

bool OverlayHasIndexOption() {
  return ::access("/sys/module/overlay/parameters/index", F_OK) == 0;
}

}  // namespace strata
