// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/attribute_copy.h"

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace strata {
namespace {

// The kernel's own limits (linux/limits.h: XATTR_LIST_MAX, XATTR_SIZE_MAX).
constexpr size_t kXattrBytes = size_t{64} * 1024;
constexpr mode_t kModeBits = 07777;

std::array<timespec, 2> TimesOf(const struct statx& stat) {
  const auto convert = [](const struct statx_timestamp& time) {
    return timespec{.tv_sec = static_cast<time_t>(time.tv_sec), .tv_nsec = time.tv_nsec};
  };
  return {convert(stat.stx_atime), convert(stat.stx_mtime)};
}

// Names an entry for the calls that exist for paths only.
std::string ProcPath(int dirfd, const std::string& name) {
  return "/proc/self/fd/" + std::to_string(dirfd) + "/" + name;
}

}  // namespace

AttributeCopy::AttributeCopy()
    : names_(std::make_unique_for_overwrite<char[]>(kXattrBytes)),
      value_(std::make_unique_for_overwrite<char[]>(kXattrBytes)) {}

// Owner, xattrs, mode, times, in this order: a change of owner takes the setuid bits and the
// capabilities away, a mode may forbid to set xattrs, and each of them may touch a time.
Status AttributeCopy::Copy(int source, int target, const struct statx& stat) {
  if (::fchown(target, stat.stx_uid, stat.stx_gid) != 0) {
    return ErrnoStatus(errno, "chown");
  }
  STRATA_RETURN_IF_ERROR(
      CopyXattrs([&](char* list, size_t size) { return ::flistxattr(source, list, size); },
                 [&](const char* key, void* value, size_t size) {
                   return ::fgetxattr(source, key, value, size);
                 },
                 [&](const char* key, const void* value, size_t size) {
                   return ::fsetxattr(target, key, value, size, 0);
                 }));
  if (::fchmod(target, stat.stx_mode & kModeBits) != 0) {
    return ErrnoStatus(errno, "chmod");
  }
  if (::futimens(target, TimesOf(stat).data()) != 0) {
    return ErrnoStatus(errno, "set the times");
  }
  return OkStatus();
}

Status AttributeCopy::CopyAt(int source, int target, const std::string& name,
                             const struct statx& stat) {
  if (::fchownat(target, name.c_str(), stat.stx_uid, stat.stx_gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, "chown");
  }
  const std::string from = ProcPath(source, name);
  const std::string to = ProcPath(target, name);
  STRATA_RETURN_IF_ERROR(
      CopyXattrs([&](char* list, size_t size) { return ::llistxattr(from.c_str(), list, size); },
                 [&](const char* key, void* value, size_t size) {
                   return ::lgetxattr(from.c_str(), key, value, size);
                 },
                 [&](const char* key, const void* value, size_t size) {
                   return ::lsetxattr(to.c_str(), key, value, size, 0);
                 }));
  // The mode of a symlink means nothing and cannot be set.
  if (!S_ISLNK(stat.stx_mode) &&
      ::fchmodat(target, name.c_str(), stat.stx_mode & kModeBits, 0) != 0) {
    return ErrnoStatus(errno, "chmod");
  }
  if (::utimensat(target, name.c_str(), TimesOf(stat).data(), AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, "set the times");
  }
  return OkStatus();
}

template <typename List, typename Get, typename Set>
Status AttributeCopy::CopyXattrs(List list, Get get, Set set) {
  const ssize_t listed = list(names_.get(), kXattrBytes);
  if (listed < 0) {
    return errno == EOPNOTSUPP ? OkStatus() : ErrnoStatus(errno, "list the xattrs");
  }
  for (ssize_t offset = 0; offset < listed;) {
    const char* key = names_.get() + offset;
    offset += static_cast<ssize_t>(std::string_view(key).size()) + 1;
    const ssize_t size = get(key, value_.get(), kXattrBytes);
    if (size < 0) {
      if (errno == ENODATA || errno == EOPNOTSUPP) {
        continue;
      }
      return ErrnoStatus(errno, "get xattr '" + std::string(key) + "'");
    }
    if (set(key, value_.get(), static_cast<size_t>(size)) != 0 && errno != EOPNOTSUPP) {
      return ErrnoStatus(errno, "set xattr '" + std::string(key) + "'");
    }
  }
  return OkStatus();
}

}  // namespace strata
