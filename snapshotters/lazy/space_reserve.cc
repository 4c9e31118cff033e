// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/space_reserve.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

constexpr mode_t kFileMode = 0600;
constexpr uint64_t kStatBlockBytes = 512;  // st_blocks, stat(2)
constexpr uint64_t kBlockBytes = 4096;
// btrfs frees an extent when nothing refers to any part of it: of one that was allocated at once,
// no part could be given back. Extents of several calls stay apart.
constexpr uint64_t kBtrfsGrainBytes = uint64_t{256} << 10;
// More than any file system takes, and far from where sums overflow.
constexpr uint64_t kMostBytes = uint64_t{1} << 60;
// Of a write, for the tree that finds its blocks.
constexpr uint64_t kMetadataShare = 64;
constexpr uint64_t kYieldSlack = uint64_t{8} << 10;

uint64_t RoundUp(uint64_t bytes, uint64_t grain) {
  return (bytes + grain - 1) / grain * grain;
}

uint64_t WithMetadata(uint64_t bytes) {
  return bytes + bytes / kMetadataShare;
}

Status Exhausted(std::string_view why) {
  return MakeStatus(StatusCode::kResourceExhausted,
                    "set room aside for a layer: " + std::string(why));
}

}  // namespace

StatusOr<std::unique_ptr<SpaceReserve>> SpaceReserve::Open(const std::string& path) {
  // O_NONBLOCK: a fifo in the place of the file must not hold us up.
  STRATA_ASSIGN_OR_RETURN(UniqueFd file,
                          OpenFile(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, kFileMode));
  std::unique_ptr<SpaceReserve> reserve(new SpaceReserve(std::move(file)));
  const MutexLock disk(reserve->disk_mutex_);
  STRATA_RETURN_IF_ERROR(Annotate(reserve->Measure(), "open '" + path + "'"));
  return reserve;
}

Status SpaceReserve::Measure() {
  struct stat found {};
  struct statfs system {};
  if (::fstat(file_.get(), &found) != 0 || ::fstatfs(file_.get(), &system) != 0) {
    return ErrnoStatus(errno, "stat");
  }
  if (!S_ISREG(found.st_mode)) {
    return MakeStatus(StatusCode::kFailedPrecondition, "it is no file");
  }
  grain_bytes_ = system.f_type == BTRFS_SUPER_MAGIC ? kBtrfsGrainBytes : kBlockBytes;
  file_bytes_ = static_cast<uint64_t>(found.st_size);
  const bool has_holes = static_cast<uint64_t>(found.st_blocks) * kStatBlockBytes < file_bytes_;
  return has_holes ? ShrinkTo(0) : OkStatus();
}

StatusOr<uint64_t> SpaceReserve::Room() const {
  struct statfs system {};
  if (::fstatfs(file_.get(), &system) != 0) {
    return ErrnoStatus(errno, "ask how much room there is");
  }
  const auto block = static_cast<uint64_t>(system.f_bsize);
  const uint64_t margin = std::clamp(system.f_blocks * block / 100, kLeastMargin, kMostMargin);
  const uint64_t available = system.f_bavail * block;
  return available - std::min(available, margin);
}

Status SpaceReserve::ShrinkTo(uint64_t bytes) {
  if (::ftruncate(file_.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, "make the reserve smaller");
  }
  file_bytes_ = bytes;
  return OkStatus();
}

Status SpaceReserve::GrowTo(uint64_t bytes) {
  const uint64_t before = file_bytes_;
  // That the margin is there is tried rather than believed: statfs(2) does not see quotas, and not
  // what btrfs will have to write when it commits.
  const uint64_t end = bytes + kLeastMargin;
  // Elsewhere one call does.
  const uint64_t most = grain_bytes_ == kBlockBytes ? kMostBytes : grain_bytes_;
  for (uint64_t at = before; at < end;) {
    const uint64_t step = std::min(end - at, most);
    if (::fallocate(file_.get(), 0, static_cast<off_t>(at), static_cast<off_t>(step)) == 0) {
      at += step;
      continue;
    }
    if (errno == EINTR) {
      continue;
    }
    const int error = errno;
    // What was allocated before the disk was full, behind the file's end too, goes back.
    (void)ShrinkTo(before);  // fails for a broken disk only; the first error is the one to report
    return error == EOPNOTSUPP ? Exhausted("the file system cannot allocate a file (fallocate)")
                               : Exhausted(StatusMessage(ErrnoStatus(error, "fallocate")));
  }
  return ShrinkTo(bytes);
}

Status SpaceReserve::Reserve(uint64_t layer, uint64_t bytes) {
  const MutexLock disk(disk_mutex_);
  const uint64_t before = reserved();
  if (bytes > kMostBytes - std::min(before, kMostBytes)) {
    return Exhausted("no disk has " + std::to_string(bytes) + " bytes");
  }
  const uint64_t wanted = RoundUp(WithMetadata(before + bytes), grain_bytes_);
  if (wanted > file_bytes_) {
    STRATA_ASSIGN_OR_RETURN(const uint64_t room, Room());
    if (wanted - file_bytes_ > room) {
      return Exhausted(std::to_string(wanted - file_bytes_) + " bytes are missing, the disk has " +
                       std::to_string(room) + " to give");
    }
    STRATA_RETURN_IF_ERROR(GrowTo(wanted));
  }
  const MutexLock lock(mutex_);
  layers_[layer] += bytes;
  reserved_ += bytes;
  return OkStatus();
}

uint64_t SpaceReserve::Wanted() const {
  return RoundUp(WithMetadata(reserved()), grain_bytes_);
}

void SpaceReserve::Trim() {
  const uint64_t wanted = Wanted();
  if (settled_ && wanted < file_bytes_ && (wanted == 0 || file_bytes_ - wanted >= kTrimBytes)) {
    (void)ShrinkTo(wanted);  // tried again the next time
  }
}

void SpaceReserve::TrimIfFree() {
  if (disk_mutex_.TryLock()) {
    Trim();
    disk_mutex_.Unlock();
  }
}

void SpaceReserve::Settled() {
  const MutexLock disk(disk_mutex_);
  settled_ = true;
  Trim();
}

void SpaceReserve::Used(uint64_t layer, uint64_t bytes) {
  {
    const MutexLock lock(mutex_);
    const auto found = layers_.find(layer);
    if (found == layers_.end()) {
      return;
    }
    const uint64_t less = std::min(found->second, bytes);
    found->second -= less;
    reserved_ -= less;
  }
  TrimIfFree();
}

void SpaceReserve::Release(uint64_t layer) {
  {
    const MutexLock lock(mutex_);
    const auto found = layers_.find(layer);
    if (found == layers_.end()) {
      return;
    }
    reserved_ -= found->second;
    layers_.erase(found);
  }
  TrimIfFree();
}

bool SpaceReserve::Yield(uint64_t bytes) {
  const MutexLock disk(disk_mutex_);
  if (file_bytes_ == 0) {
    return false;
  }
  const uint64_t give = WithMetadata(std::min(bytes, kMostBytes)) + kYieldSlack;
  const uint64_t rest = file_bytes_ - std::min(file_bytes_, give);
  pressed_ = true;
  return ShrinkTo(rest / grain_bytes_ * grain_bytes_).ok();
}

bool SpaceReserve::IsPressed() {
  if (!pressed_) {
    return false;
  }
  const StatusOr<uint64_t> room = Room();
  if (!room.ok() || *room > 0) {
    pressed_ = false;
  }
  return pressed_;
}

void SpaceReserve::Restore() {
  const MutexLock disk(disk_mutex_);
  Trim();
  const uint64_t wanted = Wanted();
  if (wanted > file_bytes_) {
    const StatusOr<uint64_t> room = Room();
    const uint64_t more =
        room.ok() ? std::min(*room, wanted - file_bytes_) / grain_bytes_ * grain_bytes_ : 0;
    if (more > 0) {
      (void)GrowTo(file_bytes_ + more);  // tried again the next time; nothing has changed
    }
  }
}

uint64_t SpaceReserve::reserved() const {
  const MutexLock lock(mutex_);
  return reserved_;
}

uint64_t SpaceReserve::reserved(uint64_t layer) const {
  const MutexLock lock(mutex_);
  const auto found = layers_.find(layer);
  return found == layers_.end() ? 0 : found->second;
}

}  // namespace strata
