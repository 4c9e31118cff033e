// SPDX-License-Identifier: Apache-2.0
#include "client/run/container_root.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

// openat2(2): EAGAIN when a rename elsewhere has made ".." uncertain.
constexpr int kTries = 10;
constexpr mode_t kDirectoryMode = 0755;

Status InvalidTarget(std::string_view path) {
  return MakeStatus(StatusCode::kFailedPrecondition,
                    "working dir " + std::string(path) + " points to invalid target");
}

// One component, in a directory that is there.
Status MakeOne(const ContainerRoot& root, const std::string& path, uid_t uid, gid_t gid) {
  STRATA_ASSIGN_OR_RETURN(const ContainerRoot::Place place, root.OpenParent(path));
  if (::mkdirat(place.directory.get(), place.name.c_str(), kDirectoryMode) != 0) {
    return errno == EEXIST ? InvalidTarget(path) : ErrnoStatus(errno, "mkdir " + ShowName(path));
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd made,
                          OpenAt(place.directory.get(), place.name, O_RDONLY | O_DIRECTORY));
  // Neither the umask nor who we are counts.
  if (::fchmod(made.get(), kDirectoryMode) != 0 || ::fchown(made.get(), uid, gid) != 0) {
    return ErrnoStatus(errno, "change owner and mode of " + ShowName(path));
  }
  return OkStatus();
}

}  // namespace

std::string CleanPath(std::string_view path) {
  std::vector<std::string_view> components;
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    const std::string_view component = path.substr(0, slash);
    if (component == "..") {
      if (!components.empty()) {
        components.pop_back();
      }
    } else if (!component.empty() && component != ".") {
      components.push_back(component);
    }
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  std::string clean;
  for (const std::string_view component : components) {
    clean += "/";
    clean += component;
  }
  return clean.empty() ? "/" : clean;
}

StatusOr<ContainerRoot> ContainerRoot::Open(const std::string& directory) {
  STRATA_ASSIGN_OR_RETURN(UniqueFd top, OpenFile(directory, O_PATH | O_DIRECTORY));
  return ContainerRoot(std::move(top));
}

StatusOr<UniqueFd> ContainerRoot::OpenInside(std::string_view path, int flags) const {
  open_how how{};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const std::string name(path);
  for (int i = 0; i < kTries; ++i) {
    UniqueFd fd(
        static_cast<int>(::syscall(SYS_openat2, top_.get(), name.c_str(), &how, sizeof(how))));
    if (fd.valid()) {
      return fd;
    }
    if (errno != EAGAIN && errno != EINTR) {
      break;
    }
  }
  return ErrnoStatus(errno, "open " + ShowName(name) + " in the container's root");
}

StatusOr<ContainerRoot::Place> ContainerRoot::OpenParent(std::string_view path) const {
  const std::string clean = CleanPath(path);
  if (clean == "/") {
    return MakeStatus(StatusCode::kInvalidArgument, "'/' has no parent");
  }
  const size_t slash = clean.rfind('/');
  STRATA_ASSIGN_OR_RETURN(UniqueFd directory, OpenInside(slash == 0 ? "/" : clean.substr(0, slash),
                                                         O_RDONLY | O_DIRECTORY));
  return Place{std::move(directory), clean.substr(slash + 1)};
}

StatusOr<std::optional<std::string>> ContainerRoot::ReadFile(std::string_view path,
                                                             size_t limit) const {
  StatusOr<UniqueFd> found = OpenInside(path, O_PATH);
  if (!found.ok()) {
    const int error = StatusErrno(found.status()).value_or(0);
    if (error == ENOENT || error == ENOTDIR) {
      return std::nullopt;
    }
    return found.status();
  }
  struct stat info {};
  if (::fstat(found->get(), &info) != 0) {
    return ErrnoStatus(errno, "stat " + ShowName(path));
  }
  if (!S_ISREG(info.st_mode)) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "read " + ShowName(path) + " in the container's root: expected a file");
  }
  STRATA_ASSIGN_OR_RETURN(
      const UniqueFd fd,
      OpenFile("/proc/self/fd/" + std::to_string(found->get()), O_RDONLY | O_NONBLOCK));
  STRATA_ASSIGN_OR_RETURN(std::string content, ReadAll(fd.get(), std::string(path), limit));
  return content;
}

Status MakeWorkingDirectory(const ContainerRoot& root, std::string_view path, uid_t uid,
                            gid_t gid) {
  const std::string clean = CleanPath(path);
  size_t end = 0;
  while (end < clean.size()) {
    end = std::min(clean.find('/', end + 1), clean.size());
    const std::string prefix = clean.substr(0, end);
    const StatusOr<UniqueFd> found = root.OpenInside(prefix, O_PATH | O_DIRECTORY);
    if (found.ok()) {
      continue;
    }
    const int error = StatusErrno(found.status()).value_or(0);
    if (error == ENOTDIR || error == ELOOP) {
      return InvalidTarget(clean);
    }
    if (error != ENOENT) {
      return found.status();
    }
    STRATA_RETURN_IF_ERROR(MakeOne(root, prefix, uid, gid));
  }
  return OkStatus();
}

}  // namespace strata
