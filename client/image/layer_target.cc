// SPDX-License-Identifier: Apache-2.0
#include "client/image/layer_target.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/os/overlay_probe.h"
#include "snapshotters/os/unseen_mount.h"

namespace strata {
namespace {

bool HasOption(const Mount& mount, std::string_view option) {
  return std::find(mount.options.begin(), mount.options.end(), option) != mount.options.end();
}

// Ids are mapped by who mounts; written through its source it would have others.
bool MapsIds(const Mount& mount) {
  return !MountOption(mount, "uidmap").empty() || !MountOption(mount, "gidmap").empty();
}

// Those of a lowerdir=. A ':' that belongs to a name has a '\' in front (overlayfs.rst).
std::vector<std::string> SplitLower(std::string_view lower) {
  std::vector<std::string> paths(1);
  for (size_t at = 0; at < lower.size(); ++at) {
    if (lower[at] == ':') {
      paths.emplace_back();
      continue;
    }
    if (lower[at] == '\\' && at + 1 < lower.size()) {
      ++at;
    }
    paths.back() += lower[at];
  }
  return paths;
}

// The lower layers of an overlay alone.
StatusOr<UniqueFd> OpenLower(const Mount& overlay) {
  const std::vector<std::string> lower = SplitLower(MountOption(overlay, "lowerdir"));
  if (lower.size() == 1) {
    return OpenFile(lower.front(), O_RDONLY | O_DIRECTORY);
  }
  Mount below = overlay;
  std::erase_if(below.options, [](const std::string& option) {
    return option.starts_with("upperdir=") || option.starts_with("workdir=") ||
           option == "volatile" || option == "rw";
  });
  below.options.emplace_back("ro");
  return MountUnseen({&below, 1});
}

Status SyncPath(const std::string& path) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY | O_DIRECTORY));
  return ::syncfs(fd.get()) == 0 ? OkStatus() : ErrnoStatus(errno, "sync '" + path + "'");
}

}  // namespace

std::string MountOption(const Mount& mount, std::string_view key) {
  for (const std::string& option : mount.options) {
    if (option.starts_with(key) && option.size() > key.size() && option[key.size()] == '=') {
      return option.substr(key.size() + 1);
    }
  }
  return "";
}

StatusOr<LayerTarget> OpenLayerTarget(const std::vector<Mount>& mounts) {
  LayerTarget target;
  target.options.user_namespace = RunningInUserNamespace();
  const bool is_one = mounts.size() == 1 && mounts.front().target.empty() && !MapsIds(mounts[0]);
  if (is_one && mounts.front().type == "bind" && !HasOption(mounts.front(), "ro")) {
    STRATA_ASSIGN_OR_RETURN(target.directory,
                            OpenFile(mounts.front().source, O_RDONLY | O_DIRECTORY));
    return target;
  }
  if (mounts.size() == 1) {
    target.upper = MountOption(mounts.front(), "upperdir");
  }
  if (is_one && mounts.front().type == "overlay" && !target.upper.empty()) {
    const Mount& overlay = mounts.front();
    STRATA_ASSIGN_OR_RETURN(target.directory, OpenFile(target.upper, O_RDONLY | O_DIRECTORY));
    target.options.overlay_upper = true;
    target.options.user_xattr = HasOption(overlay, "userxattr");
    target.options.open_lower = [overlay] { return OpenLower(overlay); };
    return target;
  }
  STRATA_ASSIGN_OR_RETURN(target.directory, MountUnseen(mounts));
  target.mounted = true;
  return target;
}

Status SyncLayerTarget(const LayerTarget& target) {
  if (::syncfs(target.directory.get()) != 0) {
    return ErrnoStatus(errno, "sync the snapshot");
  }
  if (target.options.overlay_upper || target.upper.empty()) {
    return OkStatus();
  }
  return SyncPath(target.upper);
}

Status SyncSnapshot(const std::vector<Mount>& view) {
  for (const Mount& mount : view) {
    const std::string lower = MountOption(mount, "lowerdir");
    for (const std::string& path :
         lower.empty() ? std::vector<std::string>{mount.source} : SplitLower(lower)) {
      STRATA_RETURN_IF_ERROR(SyncPath(path));
    }
  }
  return OkStatus();
}

}  // namespace strata
