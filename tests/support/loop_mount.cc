// SPDX-License-Identifier: Apache-2.0
#include "tests/support/loop_mount.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"

namespace strata::testing {
namespace {

constexpr int kMaxAttachAttempts = 64;  // others take the device that was free a moment ago

StatusOr<int> Run(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const std::string& word : words) {
    argv.push_back(const_cast<char*>(word.c_str()));
  }
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error =
      ::posix_spawnp(&child, argv.front(), &actions, /*attrp=*/nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return ErrnoStatus(error, "run '" + words.front() + "'");
  }
  int state = 0;
  while (::waitpid(child, &state, 0) < 0) {
    if (errno != EINTR) {
      return ErrnoStatus(errno, "wait for '" + words.front() + "'");
    }
  }
  return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

Status MakeFileSystem(const LoopMountOptions& options, const std::string& image) {
  // Administrators' tools are outside the PATH of many shells.
  for (const char* prefix : {"", "/usr/sbin/", "/sbin/"}) {
    std::vector<std::string> words{prefix + ("mkfs." + options.type)};
    words.insert(words.end(), options.mkfs_options.begin(), options.mkfs_options.end());
    words.push_back(image);
    const StatusOr<int> result = Run(words);
    if (!result.ok() && result.status().code() == StatusCode::kNotFound) {
      continue;
    }
    STRATA_RETURN_IF_ERROR(result.status());
    if (*result != 0) {
      return MakeStatus(StatusCode::kFailedPrecondition,
                        words.front() + ": exit code " + std::to_string(*result));
    }
    return OkStatus();
  }
  return MakeStatus(StatusCode::kNotFound, "mkfs." + options.type + " is not installed");
}

struct LoopDevice {
  std::string path;
  UniqueFd fd;
};

// Autoclear: the device is free again once it is neither open nor mounted.
StatusOr<LoopDevice> Attach(const std::string& image) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd backing, OpenFile(image, O_RDWR));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd control, OpenFile("/dev/loop-control", O_RDWR));
  for (int attempt = 0; attempt < kMaxAttachAttempts; ++attempt) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) {
      return ErrnoStatus(errno, "find a free loop device");
    }
    LoopDevice device;
    device.path = "/dev/loop" + std::to_string(number);
    STRATA_ASSIGN_OR_RETURN(device.fd, OpenFile(device.path, O_RDWR));
    loop_config config{};
    config.fd = static_cast<uint32_t>(backing.get());
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (::ioctl(device.fd.get(), LOOP_CONFIGURE, &config) == 0) {
      return device;
    }
    if (errno != EBUSY) {
      return ErrnoStatus(errno, "attach '" + image + "' to " + device.path);
    }
  }
  return MakeStatus(StatusCode::kUnavailable, "no loop device stays free for long enough");
}

}  // namespace

StatusOr<std::unique_ptr<LoopMount>> LoopMount::Create(const LoopMountOptions& options) {
  const char* base = std::getenv("TMPDIR");
  std::string path =
      std::string(base != nullptr && *base != '\0' ? base : "/tmp") + "/strata-loop-XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) {
    return ErrnoStatus(errno, "make a directory");
  }
  std::unique_ptr<LoopMount> made(new LoopMount(path));
  const std::string image = path + ".img";
  auto mount = [&]() -> Status {
    STRATA_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(image, O_RDWR | O_CREAT | O_EXCL, 0600));
    if (::ftruncate(file.get(), options.size_bytes) != 0) {
      return ErrnoStatus(errno, "size '" + image + "'");
    }
    STRATA_RETURN_IF_ERROR(MakeFileSystem(options, image));
    STRATA_ASSIGN_OR_RETURN(const LoopDevice device, Attach(image));
    if (::mount(device.path.c_str(), path.c_str(), options.type.c_str(), 0,
                options.mount_data.c_str()) == 0) {
      return OkStatus();
    }
    return errno == ENODEV ? MakeStatus(StatusCode::kNotFound, "no " + options.type + " here")
                           : ErrnoStatus(errno, "mount " + options.type);
  };
  const Status status = mount();
  // The device keeps the file for as long as it is attached.
  (void)::unlink(image.c_str());  // may not have been made
  STRATA_RETURN_IF_ERROR(status);
  made->mounted_ = true;
  return made;
}

LoopMount::~LoopMount() {
  if (mounted_ && ::umount2(path_.c_str(), 0) != 0) {
    (void)std::fprintf(stderr, "loop mount '%s' is still in use: %s\n", path_.c_str(),
                       std::strerror(errno));
    (void)::umount2(path_.c_str(), MNT_DETACH);  // ends with its last user
  }
  if (::rmdir(path_.c_str()) != 0) {
    (void)std::fprintf(stderr, "directory '%s' stays: %s\n", path_.c_str(), std::strerror(errno));
  }
}

Status EnterPrivateMountNamespace() {
  static const Status status = [] {
    if (::unshare(CLONE_NEWNS) != 0) {
      return ErrnoStatus(errno, "unshare the mount namespace");
    }
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
      return ErrnoStatus(errno, "make mounts private");
    }
    return OkStatus();
  }();
  return status;
}

}  // namespace strata::testing
