// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/reaper.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/log.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/tree_remove.h"

namespace strata {
Reaper::Reaper(int snapshots_fd, int trash_fd, Options options)
    : snapshots_fd_(snapshots_fd), trash_fd_(trash_fd), options_(options) {
  for (int i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([this] { Run(); });
  }
}

Reaper::~Reaper() {
  {
    const MutexLock lock(mutex_);
    stopping_.Cancel();
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void Reaper::Discard(uint64_t id) {
  if (options_.synchronous) {
    Note(RemoveOne(id));
    return;
  }
  const MutexLock lock(mutex_);
  items_.push_back({.id = id, .due = std::chrono::steady_clock::now() + options_.rest});
  if (items_.size() == 1) {
    changed_.Signal();
  }
}

void Reaper::Note(const Status& status) {
  if (status.ok() || status.code() == StatusCode::kCancelled) {
    return;
  }
  LogWarn("cannot remove the directory of a removed snapshot, the next start tries again",
          {{"error", std::string(StatusMessage(status))}});
  const MutexLock lock(mutex_);
  ++failed_;
}

void Reaper::Kick() {
  const MutexLock lock(mutex_);
  for (Item& item : items_) {
    item.due = {};
    item.kicked = true;
  }
  changed_.SignalAll();
}

bool Reaper::WaitIdle(std::chrono::milliseconds limit) {
  const MutexLock lock(mutex_);
  const Time deadline = std::chrono::steady_clock::now() + limit;
  while (stale_trash_ || !items_.empty() || busy_ > 0) {
    if (changed_.WaitUntil(mutex_, deadline)) {
      return !stale_trash_ && items_.empty() && busy_ == 0;
    }
  }
  return true;
}

Reaper::Counts Reaper::counts() const {
  const MutexLock lock(mutex_);
  return {.waiting = items_.size() + static_cast<size_t>(busy_), .failed = failed_};
}

bool Reaper::Ready() const {
  return stale_trash_ ||
         (!items_.empty() && items_.front().due <= std::chrono::steady_clock::now());
}

Reaper::Item Reaper::Take() {
  Item item{.id = 0, .due = {}};
  if (!std::exchange(stale_trash_, false)) {
    item = items_.front();
    items_.pop_front();
  }
  if (!items_.empty()) {
    changed_.SignalAll();  // for the other threads
  }
  return item;
}

void Reaper::Run() {
  const MutexLock lock(mutex_);
  while (!stopping_.cancelled()) {
    if (!Ready()) {
      if (items_.empty()) {
        changed_.Wait(mutex_);
      } else {
        changed_.WaitUntil(mutex_, items_.front().due);
      }
      continue;
    }
    const Item item = Take();
    ++busy_;
    mutex_.Unlock();
    const Time begun = std::chrono::steady_clock::now();
    Note(item.id == 0 ? EmptyTrash() : RemoveOne(item.id));
    const Time ended = std::chrono::steady_clock::now();
    mutex_.Lock();
    --busy_;
    changed_.SignalAll();
    // Not a low priority: a thread that is starved while it holds a directory's lock or a journal
    // handle would stop every other one that needs them (seen: 300 ms for a Prepare).
    while (!item.kicked && !stopping_.cancelled() &&
           !changed_.WaitUntil(mutex_, ended + (ended - begun))) {
    }
  }
}

Status Reaper::RemoveOne(uint64_t id) const {
  const std::string name = std::to_string(id);
  STRATA_FAULT_POINT("reaper.rename");
  if (::renameat(snapshots_fd_, name.c_str(), trash_fd_, name.c_str()) != 0) {
    // Already renamed: two sweeps may both have seen it.
    return errno == ENOENT ? OkStatus()
                           : ErrnoStatus(errno, "rename 'snapshots/" + name + "' to 'trash'");
  }
  STRATA_FAULT_POINT("reaper.remove");
  return Annotate(RemoveTree(stopping_, trash_fd_, name), "empty 'trash'");
}

Status Reaper::EmptyTrash() const {
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(trash_fd_));
  Status first;
  for (const std::string& name : names) {
    first.Update(RemoveTree(stopping_, trash_fd_, name));
  }
  return Annotate(first, "empty 'trash'");
}

}  // namespace strata
