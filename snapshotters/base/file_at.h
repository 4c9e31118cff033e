// SPDX-License-Identifier: Apache-2.0
//
// Files by (directory fd, name). What an outsider may have shaped is opened only through
// OpenBeneath, which leaves neither the directory nor follows a symlink. Stateless, safe from any
// thread.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

// open(2) of our own path, always O_CLOEXEC. Errors name the path.
StatusOr<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode = 0);

// openat(2) of one name inside `dirfd`; a symlink is not followed (ELOOP, or its own descriptor
// with O_PATH). `name` holds no '/'.
StatusOr<UniqueFd> OpenAt(int dirfd, const std::string& name, int flags, mode_t mode = 0);

// A path of any depth inside `dirfd`: no "..", no symlink, and never outside of it; a file system
// mounted inside is entered (openat2(2) RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, Linux 5.6; older
// kernels: component by component).
StatusOr<UniqueFd> OpenBeneath(int dirfd, std::string_view path, int flags, mode_t mode = 0);

// Whole regular file; anything else, or more than `limit` bytes, is FailedPrecondition. Errors of
// ReadAll call it `name`.
StatusOr<std::string> ReadFileAt(int dirfd, const std::string& name, size_t limit);
StatusOr<std::string> ReadAll(int fd, const std::string& name, size_t limit);

// Replaces `name` in one step: temporary file, fsync, rename, fsync of the directory. On error the
// old file stands and no temporary one is left.
Status WriteFileAtomicAt(int dirfd, const std::string& name, std::string_view content, mode_t mode);

// mkdirat(2) with exactly `mode`, whatever the umask.
Status MakeDirAt(int dirfd, const std::string& name, mode_t mode);

// mkdir -p of our own path: makes what is missing of it with `mode`, less the umask, and leaves
// what is there as it is; that the last component is a directory is for the caller to find out.
// Symlinks are followed. On error what has been made stays.
Status MakePath(const std::string& path, mode_t mode);

// Writes all of `bytes`, over short writes and EINTR.
Status WriteAll(int fd, std::string_view bytes, std::string_view what);
// The same at a place of a file, whose own position stays.
Status WriteAllAt(int fd, std::string_view bytes, uint64_t offset, std::string_view what);

}  // namespace strata
