// SPDX-License-Identifier: Apache-2.0
#include "tests/power_cut/disk_mount.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <thread>
#include <utility>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"

namespace strata::testing {
namespace {

constexpr int kMaxAttachAttempts = 64;  // others take the device that was free a moment ago
constexpr std::chrono::seconds kUnmountLimit{10};

// Autoclear: the device is free again once it is neither open nor mounted.
StatusOr<std::pair<std::string, UniqueFd>> Attach(const std::string& disk, bool direct) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd backing, OpenFile(disk, O_RDWR));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd control, OpenFile("/dev/loop-control", O_RDWR));
  for (int attempt = 0; attempt < kMaxAttachAttempts; ++attempt) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) {
      return ErrnoStatus(errno, "find a free loop device");
    }
    std::string path = "/dev/loop" + std::to_string(number);
    STRATA_ASSIGN_OR_RETURN(UniqueFd device, OpenFile(path, O_RDWR));
    loop_config config{};
    config.fd = static_cast<uint32_t>(backing.get());
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (direct ? LO_FLAGS_DIRECT_IO : 0);
    if (::ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) {
      return std::pair(std::move(path), std::move(device));
    }
    if (errno != EBUSY) {
      return ErrnoStatus(errno, "attach '" + disk + "' to " + path);
    }
  }
  return MakeStatus(StatusCode::kUnavailable, "no loop device stays free for long enough");
}

}  // namespace

Status MakeDisk(const std::string& image, int64_t size_bytes, const std::string& type) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(image, O_RDWR | O_CREAT, 0600));
  if (::ftruncate(file.get(), 0) != 0 || ::ftruncate(file.get(), size_bytes) != 0) {
    return ErrnoStatus(errno, "size '" + image + "'");
  }
  // Administrators' tools are outside the PATH of many shells.
  for (const char* prefix : {"", "/usr/sbin/", "/sbin/"}) {
    std::vector<std::string> words = {prefix + ("mkfs." + type), "-q", image};
    std::vector<char*> argv;
    for (std::string& word : words) {
      argv.push_back(word.data());
    }
    argv.push_back(nullptr);
    pid_t child = 0;
    if (::posix_spawnp(&child, argv[0], nullptr, nullptr, argv.data(), environ) != 0) {
      continue;
    }
    int state = 0;
    while (::waitpid(child, &state, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(state) && WEXITSTATUS(state) == 0
               ? OkStatus()
               : MakeStatus(StatusCode::kFailedPrecondition, words[0] + " failed");
  }
  return MakeStatus(StatusCode::kNotFound, "mkfs." + type + " is not installed");
}

StatusOr<std::unique_ptr<DiskMount>> DiskMount::Create(const std::string& disk,
                                                       const std::string& type,
                                                       const std::string& target, bool direct) {
  STRATA_ASSIGN_OR_RETURN(const auto device, Attach(disk, direct));
  // The mount of the last cut may still be going away, and xfs would see its own uuid twice.
  const char* data = type == "xfs" ? "nouuid" : "";
  if (::mount(device.first.c_str(), target.c_str(), type.c_str(), 0, data) != 0) {
    return errno == ENODEV ? MakeStatus(StatusCode::kNotFound, "no " + type + " here")
                           : ErrnoStatus(errno, "mount " + type);
  }
  return std::unique_ptr<DiskMount>(new DiskMount(target));
}

DiskMount::~DiskMount() {
  const auto deadline = std::chrono::steady_clock::now() + kUnmountLimit;
  while (::umount2(target_.c_str(), 0) != 0) {
    if (errno != EBUSY || std::chrono::steady_clock::now() > deadline) {
      std::perror(("unmount '" + target_ + "'").c_str());
      (void)::umount2(target_.c_str(), MNT_DETACH);  // ends with its last user
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace strata::testing
