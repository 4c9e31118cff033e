// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/data_copy.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace strata {
namespace {

constexpr size_t kBufferBytes = size_t{256} * 1024;
constexpr off_t kCopyRangeBytes = off_t{16} * 1024 * 1024;  // between two looks at the caller

}  // namespace

DataCopy::DataCopy(const CallContext& call)
    : call_(call), buffer_(std::make_unique_for_overwrite<char[]>(kBufferBytes)) {}

bool DataCopy::Clone(int source, int target) {
  if (!try_clone_) {
    return false;
  }
  if (::ioctl(target, FICLONE, source) == 0) {
    has_cloned_ = true;
    return true;
  }
  // What says that these two file systems never will. EINVAL may be about one file (btrfs: with and
  // without checksums), so it counts only before the first success. After any other error the copy
  // goes on by bytes and meets the error itself, if it is one.
  if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EXDEV || errno == ENOSYS ||
      (errno == EINVAL && !has_cloned_)) {
    try_clone_ = false;
  }
  return false;
}

Status DataCopy::Copy(int source, int target, off_t size) {
  if (Clone(source, target)) {
    return OkStatus();
  }
  off_t offset = 0;
  while (offset < size) {
    const off_t data = ::lseek(source, offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
      break;  // a hole up to the end
    }
    const off_t hole = data < 0 ? -1 : ::lseek(source, data, SEEK_HOLE);
    if (hole < 0 && errno != EINVAL) {
      return ErrnoStatus(errno, "seek");
    }
    // EINVAL: a file system without holes.
    const off_t end = hole < 0 ? size : std::min(hole, size);
    STRATA_RETURN_IF_ERROR(
        CopySegment(source, target, hole < 0 ? offset : std::min(data, size), end));
    offset = end;
    if (hole >= size) {
      return OkStatus();  // ends with data, so its size is right
    }
  }
  if (::ftruncate(target, size) != 0) {
    return ErrnoStatus(errno, "set the size");
  }
  return OkStatus();
}

Status DataCopy::CopySegment(int source, int target, off_t offset, off_t end) {
  while (offset < end) {
    STRATA_RETURN_IF_ERROR(call_.Check());
    off_t copied = 0;
    if (try_copy_range_) {
      STRATA_ASSIGN_OR_RETURN(copied, CopyRange(source, target, offset, end));
    }
    if (copied == 0) {
      STRATA_ASSIGN_OR_RETURN(copied, CopyBytes(source, target, offset, end));
    }
    if (copied == 0) {
      return MakeStatus(StatusCode::kFailedPrecondition, "the file became shorter meanwhile");
    }
    offset += copied;
  }
  return OkStatus();
}

// 0 where the call cannot copy these files.
StatusOr<off_t> DataCopy::CopyRange(int source, int target, off_t offset, off_t end) {
  off_t in = offset;
  off_t out = offset;
  const ssize_t count = ::copy_file_range(
      source, &in, target, &out, static_cast<size_t>(std::min(end - offset, kCopyRangeBytes)), 0);
  if (count >= 0) {
    return count;
  }
  switch (errno) {
    case ENOSYS:
    case EXDEV:
    case EINVAL:
    case EOPNOTSUPP:
    case EPERM:  // seccomp profiles older than the call; a file that forbids it says so to write
      try_copy_range_ = false;
      return 0;
    case EINTR:
      return 0;
    default:
      return ErrnoStatus(errno, "copy a range");
  }
}

StatusOr<off_t> DataCopy::CopyBytes(int source, int target, off_t offset, off_t end) {
  const auto wanted = std::min(static_cast<size_t>(end - offset), kBufferBytes);
  ssize_t count = 0;
  do {
    count = ::pread(source, buffer_.get(), wanted, offset);
  } while (count < 0 && errno == EINTR);
  if (count < 0) {
    return ErrnoStatus(errno, "read");
  }
  for (ssize_t done = 0; done < count;) {
    const ssize_t written =
        ::pwrite(target, buffer_.get() + done, static_cast<size_t>(count - done), offset + done);
    if (written < 0 && errno != EINTR) {
      return ErrnoStatus(errno, "write");
    }
    done += std::max<ssize_t>(written, 0);
  }
  return count;
}

}  // namespace strata
