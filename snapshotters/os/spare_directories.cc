// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/spare_directories.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

constexpr size_t kFirstTarget = 8;
// One batch: as many as share an fsync without making the first caller wait long (70 us each).
constexpr size_t kMostInBatch = 32;
// Numbers that one batch may find in use. Every try takes the next number, so a later batch goes on
// where this one gave up.
constexpr size_t kMostInUse = 8192;

}  // namespace

SpareDirectories::SpareDirectories(int snapshots_fd, std::function<StatusOr<uint64_t>()> next_id,
                                   std::vector<Shape> shapes)
    : snapshots_fd_(snapshots_fd), next_id_(std::move(next_id)) {
  {
    const MutexLock lock(mutex_);
    for (Shape& shape : shapes) {
      pools_.push_back({.shape = std::move(shape)});
    }
  }
  thread_ = std::thread([this] { Run(); });
}

SpareDirectories::~SpareDirectories() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    wanted_.Signal();
    made_.SignalAll();
  }
  thread_.join();
  const MutexLock lock(mutex_);
  for (const Pool& pool : pools_) {
    for (const uint64_t id : pool.ready) {
      RemoveOne(pool.shape, id);
    }
  }
}

StatusOr<uint64_t> SpareDirectories::Take(size_t shape) {
  const MutexLock lock(mutex_);
  Pool& pool = pools_[shape];
  pool.failed = false;
  pool.target = std::max(pool.target, kFirstTarget);
  if (pool.ready.empty()) {
    pool.target = std::min(pool.target * 2, kMost);
  }
  const uint64_t failures = pool.failures;
  ++pool.waiting;
  while (pool.ready.empty() && pool.failures == failures && !stop_) {
    wanted_.Signal();
    made_.Wait(mutex_);
  }
  --pool.waiting;
  if (pool.ready.empty()) {
    return stop_ ? MakeStatus(StatusCode::kUnavailable, "the snapshotter is stopping")
                 : pool.failure;
  }
  const uint64_t id = pool.ready.front();
  pool.ready.pop_front();
  if (pool.ready.size() * 2 <= pool.target) {
    wanted_.Signal();
  }
  return id;
}

SpareDirectories::Pool* SpareDirectories::Hungry() {
  for (Pool& pool : pools_) {
    const bool starving = pool.waiting > 0 && pool.ready.empty();
    const bool low = !pool.scarce && pool.target > 0 && pool.ready.size() * 2 <= pool.target;
    if (!pool.failed && (starving || low)) {
      return &pool;
    }
  }
  return nullptr;
}

void SpareDirectories::Run() {
  const MutexLock lock(mutex_);
  while (!stop_) {
    Pool* pool = Hungry();
    if (pool == nullptr) {
      wanted_.Wait(mutex_);
      continue;
    }
    const size_t wanted = std::max(pool->target, pool->waiting);
    const size_t missing = wanted > pool->ready.size() ? wanted - pool->ready.size() : 1;
    const Shape& shape = pool->shape;  // never changes
    // After a failure only what callers wait for: spares must not take the last inodes.
    const size_t count =
        pool->scarce ? std::max<size_t>(pool->waiting, 1) : std::min(missing, kMostInBatch);
    mutex_.Unlock();
    StatusOr<std::vector<uint64_t>> batch = MakeBatch(shape, count);
    mutex_.Lock();
    pool->scarce = !batch.ok() || batch->size() < count;
    if (batch.ok()) {
      pool->ready.insert(pool->ready.end(), batch->begin(), batch->end());
    } else {
      pool->failure = batch.status();
      pool->failed = true;
      ++pool->failures;
    }
    made_.SignalAll();
  }
}

StatusOr<std::vector<uint64_t>> SpareDirectories::MakeBatch(const Shape& shape,
                                                            size_t count) const {
  std::vector<uint64_t> ids;
  size_t in_use = 0;
  const auto make = [&]() -> Status {
    while (ids.size() < count) {
      STRATA_ASSIGN_OR_RETURN(const uint64_t id, next_id_());
      const Status status = MakeOne(shape, id);
      // Somebody's, maybe from before a restored backup: not ours to touch, nor to use.
      if (StatusErrno(status) == EEXIST && in_use < kMostInUse) {
        ++in_use;
        continue;
      }
      if (StatusErrno(status) == EEXIST) {
        return MakeStatus(
            StatusCode::kUnavailable,
            "'snapshots' has over " + std::to_string(kMostInUse) +
                " directories that the metadata store knows nothing of, up to number " +
                std::to_string(id) + ": move them away, or try again");
      }
      if (!status.ok()) {
        RemoveOne(shape, id);
        if (ids.empty()) {
          return status;
        }
        break;  // the disk is nearly full: what there is will do
      }
      ids.push_back(id);
    }
    STRATA_FAULT_POINT("spare.sync");
    // fsync of a directory waits for the journal up to that inode's last change. Touching it makes
    // that change come after the folders inside the new directories, so one fsync covers them all.
    if (::futimens(snapshots_fd_, nullptr) != 0 || ::fsync(snapshots_fd_) != 0) {
      return ErrnoStatus(errno, "sync 'snapshots'");
    }
    return OkStatus();
  };
  const Status status = make();
  if (status.ok()) {
    return ids;
  }
  for (const uint64_t id : ids) {
    RemoveOne(shape, id);
  }
  return Annotate(status, "make snapshot directories");
}

Status SpareDirectories::MakeOne(const Shape& shape, uint64_t id) const {
  const std::string name = std::to_string(id);
  STRATA_FAULT_POINT("spare.mkdir");
  STRATA_RETURN_IF_ERROR(MakeDirAt(snapshots_fd_, name, shape.mode));
  for (const Folder& folder : shape.folders) {
    STRATA_FAULT_POINT("spare.folder");
    STRATA_RETURN_IF_ERROR(MakeDirAt(snapshots_fd_, name + "/" + folder.name, folder.mode));
  }
  return OkStatus();
}

void SpareDirectories::RemoveOne(const Shape& shape, uint64_t id) const {
  const std::string name = std::to_string(id);
  // Empty, or not there; whatever stays is swept at the next start.
  for (const Folder& folder : shape.folders) {
    (void)::unlinkat(snapshots_fd_, (name + "/" + folder.name).c_str(), AT_REMOVEDIR);
  }
  (void)::unlinkat(snapshots_fd_, name.c_str(), AT_REMOVEDIR);
}

}  // namespace strata
