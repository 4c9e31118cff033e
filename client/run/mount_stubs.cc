// SPDX-License-Identifier: Apache-2.0
#include "client/run/mount_stubs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

constexpr mode_t kFileMode = 0644;

bool IsMissing(const ContainerRoot& root, const std::string& path) {
  const Status status = root.OpenInside(path, O_PATH | O_NOFOLLOW).status();
  const int error = StatusErrno(status).value_or(0);
  return error == ENOENT || error == ENOTDIR;
}

void RemoveOne(const ContainerRoot& root, const std::string& path) {
  const StatusOr<ContainerRoot::Place> place = root.OpenParent(path);
  struct stat parent {};
  struct stat found {};
  if (!place.ok() || ::fstat(place->directory.get(), &parent) != 0 ||
      ::fstatat(place->directory.get(), place->name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
    return;
  }
  const bool is_directory = S_ISDIR(found.st_mode);
  if (!is_directory && (!S_ISREG(found.st_mode) || found.st_size != 0)) {
    return;
  }
  // rmdir(2) itself leaves alone what is not empty.
  if (::unlinkat(place->directory.get(), place->name.c_str(), is_directory ? AT_REMOVEDIR : 0) ==
      0) {
    const timespec times[] = {parent.st_atim, parent.st_mtim};
    (void)::futimens(place->directory.get(), times);  // only for images that are to be the same
  }
}

}  // namespace

Status MakeMountPoint(const ContainerRoot& root, const std::string& path, bool is_file, uid_t uid,
                      gid_t gid) {
  const std::string clean = CleanPath(path);
  if (!IsMissing(root, clean)) {
    return OkStatus();
  }
  if (!is_file) {
    return MakeWorkingDirectory(root, clean, uid, gid);
  }
  STRATA_RETURN_IF_ERROR(MakeWorkingDirectory(root, clean.substr(0, clean.rfind('/')), uid, gid));
  STRATA_ASSIGN_OR_RETURN(const ContainerRoot::Place place, root.OpenParent(clean));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd made, OpenAt(place.directory.get(), place.name,
                                                      O_WRONLY | O_CREAT | O_EXCL, kFileMode));
  return ::fchown(made.get(), uid, gid) == 0 ? OkStatus()
                                             : ErrnoStatus(errno, "chown " + ShowName(clean));
}

MountStubs::MountStubs(const ContainerRoot& root, const std::vector<std::string>& destinations) {
  for (const std::string& destination : destinations) {
    std::string path = CleanPath(destination);
    while (path != "/" && IsMissing(root, path)) {
      missing_.push_back(path);
      path = CleanPath(path.substr(0, path.rfind('/')));
    }
  }
  // A directory comes behind all that is in it.
  std::sort(missing_.begin(), missing_.end(), std::greater<>());
  missing_.erase(std::unique(missing_.begin(), missing_.end()), missing_.end());
}

void MountStubs::Remove(const ContainerRoot& root) const {
  for (const std::string& path : missing_) {
    RemoveOne(root, path);
  }
}

}  // namespace strata
