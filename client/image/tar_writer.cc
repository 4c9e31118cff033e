// SPDX-License-Identifier: Apache-2.0
#include "client/image/tar_writer.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;

bool IsCarried(std::string_view name) {
  return name == "security.capability" ||
         (!name.starts_with("security.") && !name.starts_with("system.") &&
          !name.starts_with("trusted.overlay.") && !name.starts_with("user.overlay.") &&
          !name.starts_with("user.fuseoverlayfs."));
}

std::string XattrPath(int dirfd, const std::string& name) {
  return "/proc/self/fd/" + std::to_string(dirfd) + "/" + name;
}

}  // namespace

StatusOr<std::string> ReadOwnXattr(int dirfd, const std::string& name, const char* key) {
  std::string value(XATTR_SIZE_MAX, '\0');
  const ssize_t size = ::lgetxattr(XattrPath(dirfd, name).c_str(), key, value.data(), value.size());
  if (size < 0) {
    if (errno == ENODATA || errno == EOPNOTSUPP) {
      return std::string();
    }
    return ErrnoStatus(errno, "read an xattr of " + ShowName(name));
  }
  value.resize(static_cast<size_t>(size));
  return value;
}

StatusOr<Xattrs> ReadXattrs(int dirfd, const std::string& name) {
  Xattrs xattrs;
  std::string names(XATTR_LIST_MAX, '\0');
  const ssize_t size = ::llistxattr(XattrPath(dirfd, name).c_str(), names.data(), names.size());
  if (size < 0) {
    return errno == EOPNOTSUPP ? StatusOr<Xattrs>(xattrs)
                               : ErrnoStatus(errno, "list the xattrs of " + ShowName(name));
  }
  std::string_view rest(names.data(), static_cast<size_t>(size));
  while (!rest.empty()) {
    const std::string key(rest.substr(0, rest.find('\0')));
    rest.remove_prefix(std::min(key.size() + 1, rest.size()));
    if (IsCarried(key)) {
      STRATA_ASSIGN_OR_RETURN(xattrs[key], ReadOwnXattr(dirfd, name, key.c_str()));
    }
  }
  return xattrs;
}

TarWriter::TarWriter(const CallContext& call, const TarReceiver& receiver)
    : call_(call),
      receiver_(receiver),
      archive_(::archive_write_new(), ::archive_write_free),
      entry_(::archive_entry_new(), ::archive_entry_free) {}

ssize_t TarWriter::Write(archive* handle, void* self, const void* bytes, size_t size) {
  auto* writer = static_cast<TarWriter*>(self);
  writer->receiver_status_ = writer->receiver_({static_cast<const char*>(bytes), size});
  if (!writer->receiver_status_.ok()) {
    ::archive_set_error(handle, EIO, "the receiver failed");
    return -1;
  }
  return static_cast<ssize_t>(size);
}

Status TarWriter::Failure(std::string_view path) const {
  if (!receiver_status_.ok()) {
    return receiver_status_;
  }
  const char* why = ::archive_error_string(archive_.get());
  return MakeStatus(StatusCode::kFailedPrecondition, "write " + ShowName(path) + " into a tar: " +
                                                         (why == nullptr ? "failed" : why));
}

Status TarWriter::Begin() {
  if (::archive_write_set_format_pax(archive_.get()) != ARCHIVE_OK ||
      ::archive_write_set_format_option(archive_.get(), "pax", "hdrcharset", "BINARY") !=
          ARCHIVE_OK ||
      ::archive_write_set_bytes_per_block(archive_.get(), static_cast<int>(kReadBytes)) !=
          ARCHIVE_OK ||
      ::archive_write_set_bytes_in_last_block(archive_.get(), 1) != ARCHIVE_OK ||
      ::archive_write_open(archive_.get(), this, nullptr, &TarWriter::Write, nullptr) !=
          ARCHIVE_OK) {
    return Failure("");
  }
  return OkStatus();
}

Status TarWriter::Add(int dirfd, const std::string& name, const std::string& path,
                      const struct stat& found) {
  STRATA_RETURN_IF_ERROR(call_.Check());
  archive_entry* entry = ::archive_entry_clear(entry_.get());
  ::archive_entry_set_pathname(entry, (S_ISDIR(found.st_mode) ? path + "/" : path).c_str());
  ::archive_entry_set_mode(entry, found.st_mode);
  ::archive_entry_set_uid(entry, found.st_uid);
  ::archive_entry_set_gid(entry, found.st_gid);
  ::archive_entry_set_mtime(entry, found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
  ::archive_entry_set_size(entry, 0);
  const bool is_file = S_ISREG(found.st_mode);
  if (!S_ISDIR(found.st_mode) && found.st_nlink > 1) {
    const auto [first, is_new] = linked_.try_emplace({found.st_dev, found.st_ino}, path);
    if (!is_new) {
      ::archive_entry_set_hardlink(entry, first->second.c_str());
      return ::archive_write_header(archive_.get(), entry) >= ARCHIVE_WARN ? OkStatus()
                                                                           : Failure(path);
    }
  }
  if (S_ISLNK(found.st_mode)) {
    std::string target(PATH_MAX, '\0');
    const ssize_t size = ::readlinkat(dirfd, name.c_str(), target.data(), target.size());
    if (size < 0) {
      return ErrnoStatus(errno, "read the link " + ShowName(path));
    }
    target.resize(static_cast<size_t>(size));
    ::archive_entry_set_symlink(entry, target.c_str());
  } else if (S_ISCHR(found.st_mode) || S_ISBLK(found.st_mode)) {
    ::archive_entry_set_rdevmajor(entry, major(found.st_rdev));
    ::archive_entry_set_rdevminor(entry, minor(found.st_rdev));
  } else if (is_file) {
    ::archive_entry_set_size(entry, found.st_size);
  }
  STRATA_ASSIGN_OR_RETURN(const Xattrs xattrs, ReadXattrs(dirfd, name));
  for (const auto& [key, value] : xattrs) {
    ::archive_entry_xattr_add_entry(entry, key.c_str(), value.data(), value.size());
  }
  if (::archive_write_header(archive_.get(), entry) < ARCHIVE_WARN) {
    return Failure(path);
  }
  return is_file ? AddData(dirfd, name, path, static_cast<uint64_t>(found.st_size)) : OkStatus();
}

Status TarWriter::AddData(int dirfd, const std::string& name, const std::string& path,
                          uint64_t size) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenAt(dirfd, name, O_RDONLY | O_NONBLOCK));
  const std::unique_ptr<char[]> buffer(new char[kReadBytes]);
  while (size > 0) {
    STRATA_RETURN_IF_ERROR(call_.Check());
    const auto want = static_cast<size_t>(std::min<uint64_t>(kReadBytes, size));
    const ssize_t count = ::read(fd.get(), buffer.get(), want);
    if (count <= 0) {
      return count == 0 ? MakeStatus(StatusCode::kFailedPrecondition,
                                     "file " + ShowName(path) + " became shorter")
                        : ErrnoStatus(errno, "read " + ShowName(path));
    }
    if (::archive_write_data(archive_.get(), buffer.get(), static_cast<size_t>(count)) != count) {
      return Failure(path);
    }
    size -= static_cast<uint64_t>(count);
  }
  return OkStatus();
}

Status TarWriter::AddMark(const std::string& path) {
  archive_entry* entry = ::archive_entry_clear(entry_.get());
  ::archive_entry_set_pathname(entry, path.c_str());
  ::archive_entry_set_mode(entry, S_IFREG);
  ::archive_entry_set_size(entry, 0);
  return ::archive_write_header(archive_.get(), entry) >= ARCHIVE_WARN ? OkStatus() : Failure(path);
}

Status TarWriter::Finish() {
  return ::archive_write_close(archive_.get()) == ARCHIVE_OK ? OkStatus() : Failure("the end");
}

}  // namespace strata
