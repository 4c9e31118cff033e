// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/root_space.h"

#include <absl/strings/numbers.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/disk_usage.h"

namespace strata {
namespace {

std::string NameOf(const struct statfs& kind) {
  constexpr std::pair<decltype(kind.f_type), std::string_view> kNames[] = {
      {EXT4_SUPER_MAGIC, "ext4"}, {XFS_SUPER_MAGIC, "xfs"},   {BTRFS_SUPER_MAGIC, "btrfs"},
      {TMPFS_MAGIC, "tmpfs"},     {F2FS_SUPER_MAGIC, "f2fs"}, {OVERLAYFS_SUPER_MAGIC, "overlay"},
      {0x2FC12FC1, "zfs"},  // not in linux/magic.h
  };
  for (const auto& [magic, name] : kNames) {
    if (kind.f_type == magic) {
      return std::string(name);
    }
  }
  return std::to_string(kind.f_type);
}

// The bytes on disk of `name` in `dirfd`, with all in it; 0 when it is not there.
StatusOr<uint64_t> BytesOf(const CallContext& call, int dirfd, const std::string& name) {
  STRATA_RETURN_IF_ERROR(call.Check());
  struct stat found {};
  if (::fstatat(dirfd, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? StatusOr<uint64_t>(0) : ErrnoStatus(errno, "stat '" + name + "'");
  }
  if (!S_ISDIR(found.st_mode)) {
    return static_cast<uint64_t>(found.st_blocks) * 512;
  }
  const StatusOr<UniqueFd> fd = OpenAt(dirfd, name, O_PATH | O_DIRECTORY);
  if (StatusErrno(fd.status()) == ENOENT) {
    return 0;
  }
  STRATA_RETURN_IF_ERROR(fd.status());
  STRATA_ASSIGN_OR_RETURN(const Usage usage, DiskUsage(call, fd->get()));
  return static_cast<uint64_t>(usage.size);
}

StatusOr<std::vector<std::string>> NamesIn(int dirfd, const std::string& name) {
  const StatusOr<UniqueFd> fd = OpenAt(dirfd, name, O_RDONLY | O_DIRECTORY);
  if (StatusErrno(fd.status()) == ENOENT) {
    return std::vector<std::string>();
  }
  STRATA_RETURN_IF_ERROR(fd.status());
  return DirectoryEntries(fd->get());
}

}  // namespace

StatusOr<RootSpace> SpaceOf(const CallContext& call, const std::string& root) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(root, O_RDONLY | O_DIRECTORY));
  struct statfs kind {};
  struct statvfs space {};
  if (::fstatfs(fd.get(), &kind) != 0 || ::fstatvfs(fd.get(), &space) != 0) {
    return ErrnoStatus(errno, "examine root '" + root + "'");
  }
  RootSpace out;
  out.file_system = NameOf(kind);
  out.total_bytes = space.f_blocks * space.f_frsize;
  out.free_bytes = space.f_bavail * space.f_frsize;
  out.total_inodes = space.f_files;
  out.free_inodes = space.f_favail;
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> trash, NamesIn(fd.get(), "trash"));
  out.trash_entries = trash.size();
  for (const std::string& name : trash) {
    STRATA_ASSIGN_OR_RETURN(const uint64_t bytes, BytesOf(call, fd.get(), "trash/" + name));
    out.trash_bytes += bytes;
  }
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> layers, NamesIn(fd.get(), "layers"));
  for (const std::string& name : layers) {
    uint64_t number = 0;
    out.layers += absl::SimpleAtoi(name, &number) ? 1 : 0;
  }
  STRATA_ASSIGN_OR_RETURN(out.layer_bytes, BytesOf(call, fd.get(), "layers"));
  STRATA_ASSIGN_OR_RETURN(out.reserve_bytes, BytesOf(call, fd.get(), "reserve"));
  STRATA_ASSIGN_OR_RETURN(out.metadata_bytes, BytesOf(call, fd.get(), "metadata"));
  return out;
}

}  // namespace strata
