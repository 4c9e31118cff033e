// SPDX-License-Identifier: Apache-2.0
#include "client/run/executor_mounts.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

#include "client/network/name_files.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/os/mount_helper.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {
namespace {

struct LockedFlag {
  unsigned long flag;  // NOLINT(google-runtime-int): statvfs(3)'s own type
  std::string_view option;
};

constexpr LockedFlag kLockedFlags[] = {{ST_RDONLY, "ro"},
                                       {ST_NODEV, "nodev"},
                                       {ST_NOEXEC, "noexec"},
                                       {ST_NOSUID, "nosuid"},
                                       {ST_NOATIME, "noatime"},
                                       {ST_RELATIME, "relatime"},
                                       {ST_NODIRATIME, "nodiratime"}};

bool Has(const Mount& mount, std::string_view option) {
  return std::find(mount.options.begin(), mount.options.end(), option) != mount.options.end();
}

bool IsBind(const Mount& mount) {
  return mount.type == "bind" || Has(mount, "bind") || Has(mount, "rbind");
}

// A remount without them would be refused (mount_namespaces(7)).
void AddLockedFlags(Mount& mount) {
  struct statvfs found {};
  if (::statvfs(mount.source.c_str(), &found) != 0) {
    return;  // the runtime says what is wrong with it
  }
  for (const LockedFlag& locked : kLockedFlags) {
    if ((found.f_flag & locked.flag) != 0 && !Has(mount, locked.option)) {
      mount.options.emplace_back(locked.option);
    }
  }
}

// Runtimes call mount(2) alone, with one page of options.
bool MountedByUs(const Mount& mount) {
  return !IsBind(mount) && (mount.type == "overlay" || NeedsMountHelper(mount.type));
}

StatusOr<Mount> MountInBundle(const Bundle& bundle, const Mount& mount, size_t number) {
  const std::string name = std::to_string(number);
  if (Status made = MakeDirAt(bundle.fd(), kMountsName, 0711);
      !made.ok() && StatusErrno(made) != EEXIST) {
    return made;
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd mounts,
                          OpenAt(bundle.fd(), kMountsName, O_RDONLY | O_DIRECTORY));
  STRATA_RETURN_IF_ERROR(MakeDirAt(mounts.get(), name, 0700));
  const std::string place = bundle.Join(kMountsName) + "/" + name;
  STRATA_RETURN_IF_ERROR(MountAll({&mount, 1}, place));
  return Mount{"bind", place, "", {"rbind", Has(mount, "ro") ? "ro" : "rw"}};
}

Status WriteOwned(const Bundle& bundle, const std::string& name, std::string_view content,
                  const ExecutorOptions& options) {
  STRATA_RETURN_IF_ERROR(bundle.WriteFile(name, content, 0644));
  if (::fchownat(bundle.fd(), name.c_str(), HostId(options.uid_map, 0), HostId(options.gid_map, 0),
                 AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, "chown '" + name + "'");
  }
  return OkStatus();
}

}  // namespace

uint32_t HostId(const std::vector<IdRange>& map, uint32_t id) {
  for (const IdRange& range : map) {
    if (id >= range.container && id - range.container < range.size) {
      return range.host + (id - range.container);
    }
  }
  return id;
}

Status MountRoot(const Bundle& bundle, const RunRequest& request, const ExecutorOptions& options) {
  STRATA_RETURN_IF_ERROR(MakeDirAt(bundle.fd(), kRootfsName, 0700));
  if (::fchownat(bundle.fd(), kRootfsName, HostId(options.uid_map, 0), HostId(options.gid_map, 0),
                 AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, "chown 'rootfs'");
  }
  if (request.rootfs.empty()) {
    return MakeStatus(StatusCode::kInvalidArgument, "run: expected mounts for the root");
  }
  return MountAll(request.rootfs, bundle.Join(kRootfsName));
}

Status WriteNameFiles(const Bundle& bundle, const RunRequest& request,
                      const ExecutorOptions& options, bool host_network) {
  STRATA_ASSIGN_OR_RETURN(const std::string host, ReadHostResolvConf());
  STRATA_RETURN_IF_ERROR(
      WriteOwned(bundle, "resolv.conf", ResolvConf(host, options.dns, host_network), options));
  const std::string_view hostname =
      request.hostname.empty() ? kDefaultHostname : std::string_view(request.hostname);
  return WriteOwned(bundle, "hosts", HostsFile(hostname, request.extra_hosts), options);
}

StatusOr<std::vector<ExtraMount>> PrepareMounts(const Bundle& bundle, const RunRequest& request,
                                                bool user_namespace) {
  std::vector<ExtraMount> prepared = request.mounts;
  for (size_t i = 0; i < prepared.size(); ++i) {
    Mount& mount = prepared[i].mount;
    if (MountedByUs(mount)) {
      STRATA_ASSIGN_OR_RETURN(mount, MountInBundle(bundle, mount, i));
    }
    if (user_namespace && IsBind(mount)) {
      AddLockedFlags(mount);
    }
  }
  return prepared;
}

}  // namespace strata
