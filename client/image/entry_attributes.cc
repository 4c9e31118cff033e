// SPDX-License-Identifier: Apache-2.0
#include "client/image/entry_attributes.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <limits>

#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

// overlayfs.rst and fuse-overlayfs(1).
constexpr std::string_view kOverlaysOwn[] = {"trusted.overlay.", "user.overlay.",
                                             "user.fuseoverlayfs."};

bool IsOverlaysOwn(std::string_view name) {
  for (const std::string_view prefix : kOverlaysOwn) {
    if (name.starts_with(prefix)) {
      return true;
    }
  }
  return false;
}

void Note(const std::function<void(std::string_view)>& note, const std::string& text) {
  if (note) {
    note(text);
  }
}

StatusOr<uint32_t> ReadId(int64_t id, std::string_view what) {
  // The largest one means "leave it" to chown(2).
  if (id < 0 || id >= std::numeric_limits<uint32_t>::max()) {
    return MakeStatus(StatusCode::kDataLoss, "its " + std::string(what) + " is " +
                                                 std::to_string(id) + ", expected 0 to 4294967294");
  }
  return static_cast<uint32_t>(id);
}

// The magic link leads to the directory that is open, not by its name; the last component is not
// followed by the l form.
std::string XattrPath(const AttributeTarget& target) {
  return "/proc/self/fd/" + std::to_string(target.dirfd) + "/" + target.name;
}

Status SetXattrs(const AttributeTarget& target, const EntryAttributes& attributes,
                 bool user_namespace, const std::function<void(std::string_view)>& note) {
  for (const auto& [name, value] : attributes.xattrs) {
    const int result =
        target.name.empty()
            ? ::fsetxattr(target.fd, name.c_str(), value.data(), value.size(), 0)
            : ::lsetxattr(XattrPath(target).c_str(), name.c_str(), value.data(), value.size(), 0);
    if (result == 0) {
      continue;
    }
    const int error = errno;
    // user.* is for files and directories only (xattr(7)).
    const bool not_for_it = error == EPERM && !target.name.empty() && name.starts_with("user.");
    if (error != EOPNOTSUPP && !not_for_it && (error != EPERM || !user_namespace)) {
      return ErrnoStatus(error, "set xattr " + ShowName(name));
    }
    Note(note, "xattr " + ShowName(name) + " is left out: it cannot be set here");
  }
  return OkStatus();
}

Status SetOwner(const AttributeTarget& target, const EntryAttributes& attributes) {
  const int result = target.name.empty()
                         ? ::fchown(target.fd, attributes.uid, attributes.gid)
                         : ::fchownat(target.dirfd, target.name.c_str(), attributes.uid,
                                      attributes.gid, AT_SYMLINK_NOFOLLOW);
  if (result == 0) {
    return OkStatus();
  }
  const std::string what =
      "give it to " + std::to_string(attributes.uid) + ":" + std::to_string(attributes.gid);
  // An id that the user namespace does not map (chown(2)).
  return errno == EINVAL ? MakeStatus(StatusCode::kFailedPrecondition,
                                      what + ": this user namespace has no such id")
                         : ErrnoStatus(errno, what);
}

Status SetMode(const AttributeTarget& target, mode_t mode) {
  if (target.symlink) {
    return OkStatus();
  }
  if (target.name.empty()) {
    return ::fchmod(target.fd, mode) == 0 ? OkStatus() : ErrnoStatus(errno, "set its mode");
  }
  // fchmodat(2) would follow what could be swapped in meanwhile.
  STRATA_ASSIGN_OR_RETURN(const UniqueFd node,
                          OpenAt(target.dirfd, target.name, O_PATH | O_NOFOLLOW));
  struct stat found {};
  if (::fstat(node.get(), &found) != 0 || S_ISLNK(found.st_mode)) {
    return ErrnoStatus(ELOOP, "set its mode");
  }
  const std::string path = "/proc/self/fd/" + std::to_string(node.get());
  return ::chmod(path.c_str(), mode) == 0 ? OkStatus() : ErrnoStatus(errno, "set its mode");
}

Status SetTimes(const AttributeTarget& target, const timespec& modified) {
  const timespec both[2] = {modified, modified};
  const int result = target.name.empty() ? ::futimens(target.fd, both)
                                         : ::utimensat(target.dirfd, target.name.c_str(), both,
                                                       AT_SYMLINK_NOFOLLOW);
  return result == 0 ? OkStatus() : ErrnoStatus(errno, "set its times");
}

}  // namespace

StatusOr<EntryAttributes> ReadAttributes(archive_entry* entry,
                                         const std::function<void(std::string_view)>& note) {
  EntryAttributes attributes;
  STRATA_ASSIGN_OR_RETURN(attributes.uid, ReadId(::archive_entry_uid(entry), "uid"));
  STRATA_ASSIGN_OR_RETURN(attributes.gid, ReadId(::archive_entry_gid(entry), "gid"));
  attributes.mode = ::archive_entry_perm(entry) & mode_t{07777};
  attributes.modified.tv_sec = ::archive_entry_mtime(entry);
  const auto nanoseconds = ::archive_entry_mtime_nsec(entry);
  attributes.modified.tv_nsec = nanoseconds >= 0 && nanoseconds < 1'000'000'000 ? nanoseconds : 0;
  (void)::archive_entry_xattr_reset(entry);  // their number
  const char* name = nullptr;
  const void* value = nullptr;
  size_t size = 0;
  while (::archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK && name != nullptr) {
    if (IsOverlaysOwn(name)) {
      Note(note, "xattr " + ShowName(name) + " is left out: it is the file system's own");
      continue;
    }
    attributes.xattrs.emplace_back(name, std::string(static_cast<const char*>(value), size));
  }
  return attributes;
}

Status SetAttributes(const AttributeTarget& target, const EntryAttributes& attributes,
                     bool user_namespace, const std::function<void(std::string_view)>& note) {
  // In this order: a change of the owner takes setuid bits and capabilities away (chown(2)).
  STRATA_RETURN_IF_ERROR(SetOwner(target, attributes));
  STRATA_RETURN_IF_ERROR(SetMode(target, attributes.mode));
  STRATA_RETURN_IF_ERROR(SetXattrs(target, attributes, user_namespace, note));
  return target.directory ? OkStatus() : SetTimes(target, attributes.modified);
}

}  // namespace strata
