// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <string_view>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/lazy/layer_image.h"
#include "snapshotters/lazy/layer_number.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/tree_remove.h"

namespace strata {
namespace {

constexpr std::string_view kBadPrefix = "bad-";
constexpr std::string_view kNewPrefix = "new-";
constexpr std::string_view kTrashPrefix = "trash-";
constexpr const char* kNextName = "next";
constexpr size_t kLargestNext = 32;
constexpr uint64_t kBatch = 64;
constexpr size_t kMostSetAside = 8;
constexpr TimeNs kNsPerSecond = 1'000'000'000;

// The number behind `prefix`; what follows behind a '-' is not part of it.
std::optional<uint64_t> NumberAfter(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) {
    return std::nullopt;
  }
  name.remove_prefix(prefix.size());
  return ParseLayerNumber(name.substr(0, name.find('-')));
}

std::string BadName(uint64_t number) {
  return std::string(kBadPrefix) + std::to_string(number);
}

}  // namespace

StatusOr<std::unique_ptr<LayerDirectory>> LayerDirectory::Open(const std::string& path) {
  constexpr mode_t kMode = 0700;
  STRATA_RETURN_IF_ERROR(MakePath(path, kMode));
  std::unique_ptr<LayerDirectory> directory(new LayerDirectory);
  directory->path_ = path;
  STRATA_ASSIGN_OR_RETURN(directory->fd_, OpenFile(path, O_RDONLY | O_DIRECTORY));
  STRATA_RETURN_IF_ERROR(directory->Scan());
  return directory;
}

LayerDirectory::~LayerDirectory() {
  const MutexLock lock(mutex_);
  if (next_ < limit_) {
    // The number on disk is a valid one too, only higher.
    (void)WriteFileAtomicAt(fd(), kNextName, std::to_string(next_) + "\n", 0600);
  }
}

Status LayerDirectory::Scan() {
  STRATA_ASSIGN_OR_RETURN(std::vector<std::string> names, DirectoryEntries(fd()));
  std::sort(names.begin(), names.end());
  uint64_t highest = 0;
  for (const std::string& name : names) {
    const auto layer = ParseLayerNumber(name);
    const auto bad = NumberAfter(name, kBadPrefix);
    if (layer) {
      found_.push_back(*layer);
    } else if (bad) {
      const MutexLock lock(mutex_);
      set_aside_.insert(*bad);
    } else if (name.starts_with(kNewPrefix)) {
      STRATA_RETURN_IF_ERROR(Trash(name));
    }
    const auto trash = NumberAfter(name, kTrashPrefix);
    highest = std::max({highest, layer.value_or(0), bad.value_or(0), trash.value_or(0)});
  }
  std::sort(found_.begin(), found_.end());
  return ReadNext(highest + 1);
}

Status LayerDirectory::ReadNext(uint64_t lowest) {
  uint64_t next = lowest;
  const StatusOr<std::string> text = ReadFileAt(fd(), kNextName, kLargestNext);
  if (text.ok()) {
    const auto number = ParseLayerNumber(std::string_view(*text).substr(0, text->find('\n')));
    if (number) {
      next = std::max(next, *number);
    } else {
      LogWarn("numbers of layers: cannot read the next one, counting on from what is there",
              {{"file", path_ + "/" + kNextName}});
      next += kBatch;
    }
  } else if (text.status().code() != StatusCode::kNotFound) {
    return Annotate(text.status(), "numbers of layers");
  }
  const MutexLock lock(mutex_);
  next_ = next;
  limit_ = next;
  return OkStatus();
}

StatusOr<uint64_t> LayerDirectory::TakeNumber() {
  const MutexLock lock(mutex_);
  while (next_ >= limit_) {
    if (extending_) {
      changed_.Wait(mutex_);
      continue;
    }
    extending_ = true;
    const uint64_t limit = next_ + kBatch;
    mutex_.Unlock();
    const Status status = WriteFileAtomicAt(fd(), kNextName, std::to_string(limit) + "\n", 0600);
    mutex_.Lock();
    extending_ = false;
    changed_.SignalAll();
    STRATA_RETURN_IF_ERROR(Annotate(status, "set numbers of layers aside"));
    limit_ = limit;
  }
  return next_++;
}

Status LayerDirectory::SetAside(uint64_t number) {
  const std::string name = std::to_string(number);
  const std::string bad = BadName(number);
  if (::renameat(fd(), name.c_str(), fd(), bad.c_str()) != 0) {
    return ErrnoStatus(errno, "rename layer '" + name + "' to '" + bad + "'");
  }
  std::vector<uint64_t> surplus;
  {
    const MutexLock lock(mutex_);
    set_aside_.insert(number);
    while (set_aside_.size() > kMostSetAside) {
      surplus.push_back(*set_aside_.begin());
      set_aside_.erase(set_aside_.begin());
    }
  }
  for (const uint64_t old : surplus) {
    STRATA_RETURN_IF_ERROR(Trash(BadName(old)));
  }
  return OkStatus();
}

bool LayerDirectory::IsSetAside(uint64_t number) const {
  const MutexLock lock(mutex_);
  return set_aside_.contains(number);
}

Status LayerDirectory::Discard(uint64_t number) {
  return Trash(std::to_string(number));
}

Status LayerDirectory::Trash(const std::string& name) {
  // The number stays in the name: it counts as given out until the trash is gone, and by then
  // `next` says so.
  const auto digits = name.find_first_of("0123456789");
  std::string trash = std::string(kTrashPrefix);
  trash += digits == std::string::npos ? "0" : name.substr(digits, name.find('-', digits) - digits);
  {
    const MutexLock lock(mutex_);
    trash += "-" + std::to_string(++trashed_) + "-" + std::to_string(::getpid());
  }
  if (::renameat(fd(), name.c_str(), fd(), trash.c_str()) != 0) {
    return ErrnoStatus(errno, "rename '" + path_ + "/" + name + "' to '" + trash + "'");
  }
  return OkStatus();
}

Status LayerDirectory::EmptyTrash() {
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(fd()));
  Status first;
  for (const std::string& name : names) {
    if (name.starts_with(kTrashPrefix)) {
      const Status status = RemoveTree(fd(), name);
      if (first.ok()) {
        first = status;
      }
    }
  }
  return first;
}

StatusOr<TimeNs> LayerDirectory::LastUse(uint64_t number) const {
  // Of the file that nobody writes once the layer is made.
  const std::string path = std::to_string(number) + "/" + std::string(LayerImage::kSourceName);
  struct stat found {};
  if (::fstatat(fd(), path.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, "stat '" + path_ + "/" + path + "'");
  }
  return TimeNs{found.st_mtim.tv_sec} * kNsPerSecond + found.st_mtim.tv_nsec;
}

Status LayerDirectory::NoteUse(uint64_t number, TimeNs time) const {
  const std::string path = std::to_string(number) + "/" + std::string(LayerImage::kSourceName);
  const timespec at = {.tv_sec = time / kNsPerSecond, .tv_nsec = time % kNsPerSecond};
  const timespec times[2] = {at, at};
  if (::utimensat(fd(), path.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, "touch '" + path_ + "/" + path + "'");
  }
  return OkStatus();
}

}  // namespace strata
