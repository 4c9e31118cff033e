// SPDX-License-Identifier: Apache-2.0
#include "client/worker/worker_state.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <ctime>
#include <optional>
#include <thread>
#include <utility>

#include "client/random_name.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

constexpr mode_t kIdMode = 0400;
constexpr mode_t kFolderMode = 0700;
constexpr mode_t kPassableMode = 0711;
constexpr std::chrono::milliseconds kSlotPoll{50};
constexpr time_t kCollectionPauseSeconds = 60;

bool IsId(std::string_view text) {
  return text.size() == kRandomNameLength &&
         text.find_first_not_of(kRandomNameLetters) == std::string_view::npos;
}

// The name becomes part of a path: what a snapshotter may be called is narrower than that.
Status CheckName(const std::string& name) {
  constexpr size_t kLongest = 64;
  const bool plain = std::all_of(name.begin(), name.end(), [](char letter) {
    return std::isalnum(static_cast<unsigned char>(letter)) != 0 || letter == '-' ||
           letter == '_' || letter == '.';
  });
  if (plain && !name.empty() && name.size() <= kLongest) {
    return OkStatus();
  }
  return MakeStatus(StatusCode::kInvalidArgument,
                    "snapshotter name " + ShowName(name) +
                        ", expected 1 to 64 letters, digits, '-', '_' and '.'");
}

// The ids that this thread has files opened with, and with them the capabilities to open any:
// credentials(7), capabilities(7). Without the right to be another nothing changes.
class FileIds {
 public:
  explicit FileIds(const WorkerState::Guest& guest)
      : gid_(::setfsgid(guest.gid)), uid_(::setfsuid(guest.uid)) {}
  ~FileIds() {
    (void)::setfsuid(static_cast<uid_t>(uid_));
    (void)::setfsgid(static_cast<gid_t>(gid_));
  }
  FileIds(const FileIds&) = delete;
  FileIds& operator=(const FileIds&) = delete;

 private:
  const int gid_;
  const int uid_;
};

Status CheckPassable(const std::string& path, const WorkerState::Guest& guest) {
  const FileIds ids(guest);
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string folder = path.substr(0, slash);
    const UniqueFd inside(::open((folder + "/.").c_str(), O_PATH | O_CLOEXEC));
    if (!inside.valid() && errno != EACCES) {
      return ErrnoStatus(errno, "look into '" + folder + "' as user " + std::to_string(guest.uid));
    }
    if (!inside.valid()) {
      return MakeStatus(StatusCode::kFailedPrecondition,
                        "'" + folder + "' is closed to user " + std::to_string(guest.uid) +
                            ", who is root in the containers by userRemapUnsupported; open it by "
                            "`chmod o+x " +
                            folder + "`");
    }
    if (slash == std::string::npos) {
      return OkStatus();
    }
  }
}

}  // namespace

StatusOr<std::unique_ptr<WorkerState>> WorkerState::Open(const std::string& root,
                                                         const std::string& snapshotter,
                                                         const std::optional<Guest>& guest) {
  STRATA_RETURN_IF_ERROR(CheckName(snapshotter));
  if (!root.starts_with('/')) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "root '" + root + "', expected an absolute path");
  }
  std::string path = root + "/runc-" + snapshotter;
  const mode_t mode = guest.has_value() ? kPassableMode : kFolderMode;
  STRATA_RETURN_IF_ERROR(Annotate(MakePath(path, mode), "root '" + root + "'"));
  STRATA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY | O_DIRECTORY));
  if (guest.has_value()) {
    if (::fchmod(fd.get(), mode) != 0) {
      return ErrnoStatus(errno, "chmod '" + path + "'");
    }
    STRATA_RETURN_IF_ERROR(CheckPassable(path, *guest));
  }
  std::unique_ptr<WorkerState> state(new WorkerState(root, std::move(path), std::move(fd)));
  STRATA_RETURN_IF_ERROR(state->KeepBuildKitOut());
  STRATA_RETURN_IF_ERROR(state->ReadOrMakeId());
  return state;
}

// buildkitd holds this file with flock(2) alone; workers of ours share it.
Status WorkerState::KeepBuildKitOut() {
  const std::string path = root_ + "/buildkitd.lock";
  STRATA_ASSIGN_OR_RETURN(root_lock_, OpenFile(path, O_RDWR | O_CREAT, 0600));
  if (::flock(root_lock_.get(), LOCK_SH | LOCK_NB) == 0) {
    return OkStatus();
  }
  return errno == EWOULDBLOCK ? MakeStatus(StatusCode::kFailedPrecondition,
                                           "could not lock " + path + ", another instance running?")
                              : ErrnoStatus(errno, "lock '" + path + "'");
}

Status WorkerState::ReadOrMakeId() {
  const std::string path = path_ + "/workerid";
  const auto read = [&]() -> StatusOr<std::string> {
    STRATA_ASSIGN_OR_RETURN(std::string id,
                            ReadFileAt(fd_.get(), "workerid", kRandomNameLength + 1));
    if (!IsId(id)) {
      return MakeStatus(StatusCode::kDataLoss, "read '" + path +
                                                   "': expected 25 letters and digits"
                                                   "; remove it to begin with a new identity");
    }
    return id;
  };
  StatusOr<std::string> id = read();
  if (id.status().code() == StatusCode::kNotFound) {
    // Linked to its name when it is whole, and only by the first of several.
    STRATA_ASSIGN_OR_RETURN(const std::string fresh, RandomName());
    const std::string temporary = ".workerid-" + fresh;
    STRATA_RETURN_IF_ERROR(WriteFileAtomicAt(fd_.get(), temporary, fresh, kIdMode));
    const int linked =
        ::linkat(fd_.get(), temporary.c_str(), fd_.get(), "workerid", 0) == 0 ? 0 : errno;
    (void)::unlinkat(fd_.get(), temporary.c_str(), 0);  // what stays means nothing
    if (linked != 0 && linked != EEXIST) {
      return ErrnoStatus(linked, "write '" + path + "'");
    }
    (void)::fsync(fd_.get());  // a crash now would only make another id
    id = read();
  }
  STRATA_ASSIGN_OR_RETURN(worker_id_, std::move(id));
  return OkStatus();
}

StatusOr<std::optional<FileLock>> WorkerState::TakeSlot(CallContext& call, int slots,
                                                        std::chrono::milliseconds timeout) {
  if (slots <= 0) {
    return std::optional<FileLock>();
  }
  if (::mkdirat(fd_.get(), "slots", kFolderMode) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, "make '" + path_ + "/slots'");
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd directory,
                          OpenAt(fd_.get(), "slots", O_RDONLY | O_DIRECTORY));
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    for (int slot = 0; slot < slots; ++slot) {
      STRATA_ASSIGN_OR_RETURN(
          std::optional<FileLock> lock,
          FileLock::Try(directory.get(), std::to_string(slot), FileLock::Mode::kExclusive));
      if (lock.has_value()) {
        return lock;
      }
    }
    STRATA_RETURN_IF_ERROR(call.Check());
    if (std::chrono::steady_clock::now() >= deadline) {
      return MakeStatus(StatusCode::kDeadlineExceeded,
                        "all " + std::to_string(slots) +
                            " places of max-parallelism were taken for as long as we waited");
    }
    std::this_thread::sleep_for(kSlotPoll);
  }
}

StatusOr<std::optional<FileLock>> WorkerState::TakeCollection() {
  STRATA_ASSIGN_OR_RETURN(std::optional<FileLock> lock,
                          FileLock::Try(fd_.get(), "gc", FileLock::Mode::kExclusive));
  struct stat last {};
  if (!lock.has_value() || ::fstatat(fd_.get(), "gc.last", &last, AT_SYMLINK_NOFOLLOW) == 0) {
    timespec now{};
    (void)::clock_gettime(CLOCK_REALTIME, &now);  // cannot fail for this clock
    const time_t age = now.tv_sec - last.st_mtim.tv_sec;
    if (!lock.has_value() || (age >= 0 && age < kCollectionPauseSeconds)) {
      return std::optional<FileLock>();
    }
  }
  STRATA_RETURN_IF_ERROR(WriteFileAtomicAt(fd_.get(), "gc.last", "", 0600));
  return lock;
}

}  // namespace strata
