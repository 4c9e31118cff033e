// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/tree_sync.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/directory_walk.h"

namespace strata {
namespace {

// Files of a directory that are open at a time, their writing under way.
constexpr size_t kFilesAtOnce = 64;

bool Vanished(int error) {
  return error == ENOENT || error == ESTALE;
}

class SyncWalk {
 public:
  explicit SyncWalk(const CallContext& call) : call_(call) {}

  Status Run(int root);

 private:
  Status EnterAndRead(const std::string& name, UniqueFd fd);
  Status SyncEntries();
  Status Start(const std::string& name);
  Status Finish();
  [[nodiscard]] Status Failed(int error, std::string_view verb, std::string_view name) const {
    return ErrnoStatus(error, std::string(verb) + " " + ShowName(walk_.PathOf(name)));
  }

  struct Open {
    std::string name;
    UniqueFd fd;
  };

  const CallContext& call_;
  DirectoryWalk walk_{OpenDirectoryQuietly};
  std::vector<Open> files_;
};

// Starts to write the file out, so that the disk has many at a time to do.
Status SyncWalk::Start(const std::string& name) {
  // What became something else since the directory was read must neither block nor be followed.
  UniqueFd file(::openat(walk_.fd(), name.c_str(),
                         O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file.valid()) {
    return Vanished(errno) || errno == ELOOP || errno == ENXIO ? OkStatus()
                                                               : Failed(errno, "open", name);
  }
  // Only a hint; fsync finds what is wrong.
  (void)::sync_file_range(file.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
  files_.push_back({.name = name, .fd = std::move(file)});
  return files_.size() < kFilesAtOnce ? OkStatus() : Finish();
}

Status SyncWalk::Finish() {
  for (const Open& file : files_) {
    STRATA_RETURN_IF_ERROR(call_.Check());
    // EINVAL: it is of a kind that has nothing to sync.
    if (::fsync(file.fd.get()) != 0 && errno != EINVAL) {
      return Failed(errno, "sync", file.name);
    }
  }
  files_.clear();
  return OkStatus();
}

Status SyncWalk::SyncEntries() {
  EntryReader entries(walk_.fd());
  while (const dirent64* entry = entries.Next()) {
    STRATA_RETURN_IF_ERROR(call_.Check());
    unsigned char type = entry->d_type;
    if (type == DT_UNKNOWN) {
      struct stat found {};
      if (::fstatat(walk_.fd(), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0) {
        type = static_cast<unsigned char>(IFTODT(found.st_mode));
      }
    }
    if (type == DT_DIR) {
      walk_.Postpone(entry->d_name);
    } else if (type == DT_REG) {
      STRATA_RETURN_IF_ERROR(Start(entry->d_name));
    }
  }
  STRATA_RETURN_IF_ERROR(Finish());
  if (entries.error() != 0 && !Vanished(entries.error())) {
    return Failed(entries.error(), "read directory", "");
  }
  return ::fsync(walk_.fd()) == 0 ? OkStatus() : Failed(errno, "sync directory", "");
}

Status SyncWalk::EnterAndRead(const std::string& name, UniqueFd fd) {
  if (!fd.valid()) {
    const bool gone = Vanished(errno) || errno == ENOTDIR || errno == ELOOP;
    return gone && walk_.depth() > 0 ? OkStatus() : Failed(errno, "open directory", name);
  }
  if (const int error = walk_.Enter(name, std::move(fd)); error != 0) {
    return Failed(error, "stat", name);
  }
  return SyncEntries();
}

Status SyncWalk::Run(int root) {
  STRATA_RETURN_IF_ERROR(EnterAndRead("", UniqueFd(OpenDirectoryQuietly(root, "."))));
  while (walk_.depth() > 0) {
    if (const auto name = walk_.TakePostponed(); name.has_value()) {
      STRATA_RETURN_IF_ERROR(
          EnterAndRead(*name, UniqueFd(OpenDirectoryQuietly(walk_.fd(), name->c_str()))));
    } else {
      // What is left of levels that somebody has moved away counts as vanished.
      (void)walk_.Leave();
    }
  }
  return OkStatus();
}

}  // namespace

Status SyncTree(const CallContext& call, int dirfd, SyncAtCommit how) {
  switch (how) {
    case SyncAtCommit::kNone:
      return OkStatus();
    case SyncAtCommit::kLayer:
      return SyncWalk(call).Run(dirfd);
    case SyncAtCommit::kFilesystem:
      return ::syncfs(dirfd) == 0 ? OkStatus() : ErrnoStatus(errno, "sync the file system");
  }
  return OkStatus();
}

}  // namespace strata
