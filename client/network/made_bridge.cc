// SPDX-License-Identifier: Apache-2.0
#include "client/network/made_bridge.h"

#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <utility>
#include <vector>

#include "client/network/bridge.h"
#include "client/network/namespace_thread.h"
#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

constexpr const char* kLockFile = "bridge.lock";
constexpr const char* kMadeFile = "bridge.made";  // holds the bridge's name
constexpr size_t kMaxNameBytes = 64;
constexpr mode_t kFileMode = 0600;
constexpr std::chrono::milliseconds kPoll{2};

}  // namespace

Status MadeBridge::Here(const std::function<Status()>& work) const {
  return outer_netns_.empty() ? work() : RunInNetworkNamespace(outer_netns_, work);
}

StatusOr<FileLock> MadeBridge::BeforeSetup(const std::string& name, const CniLimits& limits) {
  std::optional<FileLock> lock;
  while (true) {
    STRATA_ASSIGN_OR_RETURN(lock,
                            FileLock::Try(namespaces_.fd(), kLockFile, FileLock::Mode::kShared));
    if (lock.has_value()) {
      break;
    }
    if (std::chrono::steady_clock::now() > limits.deadline) {
      return MakeStatus(StatusCode::kDeadlineExceeded, "the bridge is still being removed");
    }
    const timespec pause{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(kPoll).count()};
    (void)::nanosleep(&pause, nullptr);  // a signal only means to look earlier
  }
  STRATA_RETURN_IF_ERROR(Here([&]() -> Status {
    if (InterfaceExists(name)) {
      return OkStatus();
    }
    return WriteFileAtomicAt(namespaces_.fd(), kMadeFile, name, kFileMode);
  }));
  return *std::move(lock);
}

Status MadeBridge::RemoveIfUnused() {
  STRATA_ASSIGN_OR_RETURN(
      std::optional<FileLock> lock,
      FileLock::TryExisting(namespaces_.fd(), kLockFile, FileLock::Mode::kExclusive));
  if (!lock.has_value()) {
    return OkStatus();
  }
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> ids, namespaces_.Ids());
  if (!ids.empty()) {
    return OkStatus();
  }
  const StatusOr<std::string> name = ReadFileAt(namespaces_.fd(), kMadeFile, kMaxNameBytes);
  if (name.ok()) {
    STRATA_RETURN_IF_ERROR(Here([&] { return RemoveBridge(*name); }));
    (void)::unlinkat(namespaces_.fd(), kMadeFile, 0);  // else it is tried again, for nothing
  } else if (StatusErrno(name.status()) != ENOENT) {
    return name.status();
  }
  lock->Remove(namespaces_.fd(), kLockFile);
  return OkStatus();
}

}  // namespace strata
