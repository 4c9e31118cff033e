// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/erofs_mount.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {
namespace {

bool MeansCannot(int error) {
  switch (error) {
    case ENODEV:      // no EROFS in this kernel
    case ENOTBLK:     // none from a file (before Linux 6.12), or not in this stack of mounts
    case EINVAL:      // an image that this kernel does not read, or a file that it cannot map
    case EOPNOTSUPP:  // the file system of the image
    case ELOOP:       // too deep a stack
    case EPERM:       // a user namespace
      return true;
    default:
      return false;
  }
}

// The settings of an EROFS mount without a device are in a folder of this one, "erofs-N", N counted
// up in each start of the kernel (fs/super.c, super_setup_bdi). Nothing says which mount has which
// N.
constexpr char kSettings[] = "/sys/class/bdi";
constexpr std::string_view kSettingsPrefix = "erofs-";

struct Settings {
  uint64_t number;
  std::string folder;
};

StatusOr<std::vector<Settings>> SettingsOfMounts() {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd all, OpenFile(kSettings, O_RDONLY | O_DIRECTORY));
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(all.get()));
  std::vector<Settings> found;
  for (const std::string& name : names) {
    uint64_t number = 0;
    const char* end = name.data() + name.size();
    if (name.starts_with(kSettingsPrefix) &&
        std::from_chars(name.data() + kSettingsPrefix.size(), end, number).ptr == end) {
      found.push_back({number, std::string(kSettings) + "/" + name});
    }
  }
  return found;
}

// How many mounts there have been before; 0 where it cannot be told.
uint64_t LastMount() {
  uint64_t last = 0;
  const auto all = SettingsOfMounts();
  for (const Settings& settings : all.ok() ? *all : std::vector<Settings>()) {
    last = std::max(last, settings.number);
  }
  return last;
}

Status SetReadAhead(const std::string& folder) {
  const std::string path = folder + "/read_ahead_kb";
  STRATA_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(path, O_WRONLY));
  return WriteAll(file.get(), std::to_string(kErofsReadAheadBytes / 1024), path);
}

// For the mounts behind `last`: ours, and any other that was made in the same moment, to which it
// does no harm. Belongs to the host's root: without it the kernel's 128 KiB stay.
void RaiseReadAhead(uint64_t last) {
  const auto all = SettingsOfMounts();
  Status status = all.status();
  for (const Settings& settings : all.ok() ? *all : std::vector<Settings>()) {
    // ENOENT: somebody else's, and gone already.
    if (const Status set = settings.number > last ? SetReadAhead(settings.folder) : OkStatus();
        !set.ok() && StatusErrno(set) != ENOENT) {
      status = set;
    }
  }
  if (!status.ok()) {
    LogDebug("read-ahead of an EROFS mount stays as it is, ignoring",
             {{"error", std::string(StatusMessage(status))}});
  }
}

}  // namespace

Status MountErofsImage(const std::string& image_path, const std::string& target) {
  // mount(2) itself: mount(8) would put a loop device in between.
  const Mount mount{"erofs", image_path, "", {"ro"}};
  const uint64_t last = LastMount();
  const Status status = MountAll({&mount, 1}, target);
  if (status.ok()) {
    RaiseReadAhead(last);
  }
  return MeansCannot(StatusErrno(status).value_or(0))
             ? MakeStatus(StatusCode::kUnimplemented, StatusMessage(status))
             : status;
}

}  // namespace strata
