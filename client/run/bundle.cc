// SPDX-License-Identifier: Apache-2.0
#include "client/run/bundle.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "client/random_name.h"
#include "client/run/process_watch.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/mount_ops.h"
#include "snapshotters/os/tree_remove.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kMaxIdBytes = 128;
constexpr size_t kMaxNoteBytes = size_t{1} << 20;
constexpr milliseconds kLockLimit{10'000};
constexpr int kUnmountTries = 20;
constexpr milliseconds kUnmountPause{10};

void Pause(milliseconds time) {
  (void)::poll(nullptr, 0, static_cast<int>(time.count()));
}

// The kernel drops it when its process ends, however that ends (flock(2)).
bool TryLock(int fd) {
  return ::flock(fd, LOCK_EX | LOCK_NB) == 0;
}

// What is there, until nothing is: mounts can lie upon one another. Busy ones are given a moment,
// since a detached one is written back at a time that nobody knows; then they are detached.
Status UnmountEverything(const std::string& target) {
  for (int tries = 0; tries < kUnmountTries;) {
    const Status status = Unmount(target, /*lazy=*/false);
    const int error = StatusErrno(status).value_or(0);
    if (status.code() == StatusCode::kNotFound || error == ENOENT) {
      return OkStatus();
    }
    if (!status.ok() && error != EBUSY) {
      break;  // the server of a FUSE mount may be dead
    }
    if (!status.ok()) {
      ++tries;
      Pause(kUnmountPause);
    }
  }
  const Status status = Unmount(target, /*lazy=*/true);
  return status.code() == StatusCode::kNotFound ? OkStatus() : status;
}

ContainerNote ParseNote(std::string_view text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  ContainerNote note;
  for (const auto& [key, value] : {std::pair("image", &note.image), {"command", &note.command}}) {
    if (json.is_object() && json.contains(key) && json[key].is_string()) {
      *value = json[key].get<std::string>();
    }
  }
  return note;
}

}  // namespace

bool IsContainerId(std::string_view id) {
  return !id.empty() && id.size() <= kMaxIdBytes && id.front() != '.' &&
         std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '+' || c == '.' || c == '-';
         });
}

// --- Bundle

Bundle::~Bundle() {
  if (!fd_.valid()) {
    return;  // moved from, or removed
  }
  if (const Status status = Remove(); !status.ok()) {
    LogWarn("bundle not removed, ignoring",
            {{"container", id_}, {"error", std::string(StatusMessage(status))}});
  }
}

std::string Bundle::Join(std::string_view name) const {
  return path_ + "/" + std::string(name);
}

Status Bundle::WriteFile(const std::string& name, std::string_view content, uint32_t mode) const {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd,
                          OpenAt(fd_.get(), name, O_WRONLY | O_CREAT | O_TRUNC, mode));
  if (::fchmod(fd.get(), mode) != 0) {
    return ErrnoStatus(errno, "chmod '" + name + "'");
  }
  return WriteAll(fd.get(), content, name);
}

Status Bundle::WriteNote(const ContainerNote& note) const {
  const nlohmann::json json = {{"image", note.image}, {"command", note.command}};
  return WriteFile(kNoteFile, json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
                   0600);
}

Status Bundle::Remove() {
  Status status = OkStatus();
  if (const auto mounts = OpenAt(fd_.get(), kMountsName, O_RDONLY | O_DIRECTORY); mounts.ok()) {
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(mounts->get()));
    for (const std::string& name : names) {
      status.Update(UnmountEverything(Join(kMountsName) + "/" + name));
    }
  }
  status.Update(UnmountEverything(Join(kRootfsName)));
  if (status.ok()) {
    status = RemoveTree(parent_.get(), id_);
    if (StatusErrno(status) == ENOTEMPTY) {
      // Another worker has just put a file for an exec there.
      status = RemoveTree(parent_.get(), id_);
    }
  }
  fd_.Reset();
  return status;
}

// --- BundleDirectory

StatusOr<std::unique_ptr<BundleDirectory>> BundleDirectory::Open(const std::string& path) {
  STRATA_RETURN_IF_ERROR(MakePath(path, 0711));
  // The runtime's view of the root must not depend on symlinks that may change.
  char* const resolved = ::realpath(path.c_str(), nullptr);
  if (resolved == nullptr) {
    return ErrnoStatus(errno, "resolve " + ShowName(path));
  }
  const std::string real = resolved;
  std::free(resolved);
  STRATA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(real, O_RDONLY | O_DIRECTORY));
  if (::fchmod(fd.get(), 0711) != 0) {
    return ErrnoStatus(errno, "chmod " + ShowName(real));
  }
  return std::unique_ptr<BundleDirectory>(new BundleDirectory(real, std::move(fd)));
}

StatusOr<UniqueFd> BundleDirectory::Lock() const {
  STRATA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path_, O_RDONLY | O_DIRECTORY));
  const auto end = steady_clock::now() + kLockLimit;
  while (!TryLock(fd.get())) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return ErrnoStatus(errno, "lock " + ShowName(path_));
    }
    if (steady_clock::now() > end) {
      return MakeStatus(StatusCode::kDeadlineExceeded,
                        "lock " + ShowName(path_) + ": somebody has held it for " +
                            std::to_string(kLockLimit.count()) + " ms");
    }
    Pause(milliseconds(1));
  }
  return fd;
}

StatusOr<Bundle> BundleDirectory::Create(const std::string& wanted) {
  std::string id = wanted;
  if (id.empty()) {
    STRATA_ASSIGN_OR_RETURN(id, RandomName());
  }
  if (!IsContainerId(id)) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "container id " + ShowName(id) +
                          ": expected 1 to 128 letters, digits and '_+.-', no dot in front");
  }
  STRATA_ASSIGN_OR_RETURN(UniqueFd parent, OpenFile(path_, O_RDONLY | O_DIRECTORY));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd held, Lock());
  const Status made = MakeDirAt(fd_.get(), id, 0711);
  if (StatusErrno(made) == EEXIST) {
    return MakeStatus(StatusCode::kAlreadyExists, "container " + id + " exists already");
  }
  STRATA_RETURN_IF_ERROR(made);
  StatusOr<UniqueFd> fd = OpenAt(fd_.get(), id, O_RDONLY | O_DIRECTORY);
  if (!fd.ok() || !TryLock(fd->get())) {
    const Status failed = fd.ok() ? ErrnoStatus(errno, "lock the bundle " + id) : fd.status();
    (void)RemoveTree(fd_.get(), id);  // the first error is the one to report
    return failed;
  }
  return Bundle(id, path_ + "/" + id, std::move(parent), *std::move(fd));
}

StatusOr<BundleView> BundleDirectory::Find(std::string_view id) const {
  const std::string name(id);
  const Status missing =
      MakeStatus(StatusCode::kNotFound, "container " + ShowName(id) + " not found");
  if (!IsContainerId(id)) {
    return missing;
  }
  const StatusOr<UniqueFd> fd = OpenAt(fd_.get(), name, O_RDONLY | O_DIRECTORY);
  if (!fd.ok()) {
    return StatusErrno(fd.status()) == ENOENT ? missing : fd.status();
  }
  BundleView view{name, path_ + "/" + name, {}, 0, 0};
  if (const auto note = ReadFileAt(fd->get(), kNoteFile, kMaxNoteBytes); note.ok()) {
    view.note = ParseNote(*note);
  }
  struct stat started {};
  if (::fstatat(fd->get(), kPidFile, &started, AT_SYMLINK_NOFOLLOW) == 0) {
    view.pid = ReadPidFile(view.path + "/" + kPidFile);
    view.started_unix = started.st_mtim.tv_sec;
  }
  return view;
}

StatusOr<std::vector<BundleView>> BundleDirectory::List() const {
  STRATA_ASSIGN_OR_RETURN(std::vector<std::string> names, DirectoryEntries(fd_.get()));
  std::sort(names.begin(), names.end());
  std::vector<BundleView> views;
  for (const std::string& name : names) {
    StatusOr<BundleView> view = Find(name);
    if (view.ok()) {
      views.push_back(*std::move(view));
    } else if (view.status().code() != StatusCode::kNotFound) {
      return view.status();
    }
  }
  return views;
}

StatusOr<Bundle> BundleDirectory::Claim(const std::string& id) const {
  STRATA_ASSIGN_OR_RETURN(UniqueFd parent, OpenFile(path_, O_RDONLY | O_DIRECTORY));
  STRATA_ASSIGN_OR_RETURN(UniqueFd fd, OpenAt(fd_.get(), id, O_RDONLY | O_DIRECTORY));
  struct stat found {};
  // Who removes a bundle holds its lock until it is gone.
  if (!TryLock(fd.get()) || ::fstat(fd.get(), &found) != 0 || found.st_nlink == 0) {
    return MakeStatus(StatusCode::kUnavailable, "container " + id + " has its worker");
  }
  return Bundle(id, path_ + "/" + id, std::move(parent), std::move(fd));
}

StatusOr<std::vector<Bundle>> BundleDirectory::TakeStale() {
  std::vector<Bundle> stale;
  STRATA_ASSIGN_OR_RETURN(const UniqueFd held, Lock());
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(fd_.get()));
  for (const std::string& name : names) {
    if (!IsContainerId(name)) {
      continue;
    }
    StatusOr<Bundle> bundle = Claim(name);
    if (bundle.ok()) {
      stale.push_back(*std::move(bundle));
    }
  }
  return stale;
}

}  // namespace strata
