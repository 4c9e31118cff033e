// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/idmap_probe.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

// Any map will do that is not the identity.
constexpr std::string_view kMap = "0 100000 65536";

Status Failed(const Status& status) {
  return MakeStatus(StatusCode::kFailedPrecondition, StatusMessage(status));
}

// A process of a user namespace of its own, for as long as this lives.
class NamespaceProcess {
 public:
  ~NamespaceProcess() {
    go_.Reset();  // it waits for the end of the pipe
    if (pid_ > 0) {
      while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
  }
  NamespaceProcess() = default;
  NamespaceProcess(const NamespaceProcess&) = delete;
  NamespaceProcess& operator=(const NamespaceProcess&) = delete;

  Status Start() {
    int wait[2];
    int ready[2];
    if (::pipe2(wait, O_CLOEXEC) != 0) {
      return ErrnoStatus(errno, "make a pipe");
    }
    const UniqueFd wait_end(wait[0]);
    go_ = UniqueFd(wait[1]);
    if (::pipe2(ready, O_CLOEXEC) != 0) {
      return ErrnoStatus(errno, "make a pipe");
    }
    const UniqueFd ready_end(ready[0]);
    UniqueFd tell_end(ready[1]);
    pid_ = ::fork();
    if (pid_ < 0) {
      return ErrnoStatus(errno, "fork");
    }
    if (pid_ == 0) {
      Child(wait_end.get(), tell_end.get(), go_.get());
    }
    tell_end.Reset();
    int error = 0;
    if (::read(ready_end.get(), &error, sizeof(error)) != sizeof(error)) {
      error = ECHILD;  // it was killed
    }
    return error == 0 ? OkStatus() : ErrnoStatus(error, "make a user namespace");
  }

  [[nodiscard]] std::string Path(const char* name) const {
    return "/proc/" + std::to_string(pid_) + "/" + name;
  }

 private:
  // Only what is safe after fork(2) in a process of several threads.
  [[noreturn]] static void Child(int wait, int tell, int go) {
    (void)::close(go);  // or its own end would keep it waiting
    const int error = ::unshare(CLONE_NEWUSER) == 0 ? 0 : errno;
    char none = 0;
    (void)!::write(tell, &error, sizeof(error));  // a parent that is gone needs no answer
    (void)!::read(wait, &none, sizeof(none));
    ::_exit(0);
  }

  pid_t pid_ = -1;
  UniqueFd go_;
};

StatusOr<UniqueFd> MappedNamespace(const NamespaceProcess& process) {
  for (const char* name : {"uid_map", "gid_map"}) {
    STRATA_ASSIGN_OR_RETURN(const UniqueFd map, OpenFile(process.Path(name), O_WRONLY));
    STRATA_RETURN_IF_ERROR(WriteAll(map.get(), kMap, name));
  }
  return OpenFile(process.Path("ns/user"), O_RDONLY);
}

Status CheckKernel() {
  struct utsname name {};
  int major = 0;
  int minor = 0;
  if (::uname(&name) != 0 || std::sscanf(name.release, "%d.%d", &major, &minor) != 2 || major > 5 ||
      (major == 5 && minor >= 19)) {
    return OkStatus();
  }
  return MakeStatus(StatusCode::kFailedPrecondition,
                    "Linux " + std::string(name.release) +
                        " has no overlays over id-mapped layers: expected 5.19 or later");
}

Status TryMapping(const std::string& directory) {
  NamespaceProcess process;
  STRATA_RETURN_IF_ERROR(process.Start());
  STRATA_ASSIGN_OR_RETURN(const UniqueFd user, MappedNamespace(process));
  // Detached: it is nowhere to be seen, and ends with its descriptor.
  const UniqueFd tree(
      ::open_tree(AT_FDCWD, directory.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!tree.valid()) {
    return ErrnoStatus(errno, "clone the mount of " + ShowName(directory));
  }
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_IDMAP;
  attributes.userns_fd = static_cast<decltype(attributes.userns_fd)>(user.get());
  if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) != 0) {
    return ErrnoStatus(errno, "map the ids of a mount of " + ShowName(directory));
  }
  return OkStatus();
}

}  // namespace

Status ProbeIdmappedMounts(const std::string& directory) {
  STRATA_RETURN_IF_ERROR(CheckKernel());
  const Status status = TryMapping(directory);
  return status.ok() ? status : Failed(status);
}

}  // namespace strata
