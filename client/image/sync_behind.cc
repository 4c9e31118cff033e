// SPDX-License-Identifier: Apache-2.0
#include "client/image/sync_behind.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

namespace strata {

SyncBehind::~SyncBehind() {
  End(/*all=*/false);
}

void SyncBehind::Add(UniqueFd fd) {
  const MutexLock lock(mutex_);
  waiting_.push_back(std::move(fd));
  changed_.SignalAll();
  if (!thread_.joinable()) {
    thread_ = std::thread([this] { Work(); });
  }
}

void SyncBehind::Work() {
  while (true) {
    std::vector<UniqueFd> fds;
    {
      MutexLock lock(mutex_);
      while (waiting_.empty() && !ended_) {
        changed_.Wait(mutex_);
      }
      if (waiting_.empty()) {
        return;
      }
      fds.swap(waiting_);
    }
    for (const UniqueFd& fd : fds) {
      if (::syncfs(fd.get()) != 0) {
        const int error = errno;
        const MutexLock lock(mutex_);
        status_.Update(ErrnoStatus(error, "sync the snapshots"));
      }
    }
  }
}

void SyncBehind::End(bool all) {
  std::vector<UniqueFd> dropped;  // closed after the lock
  std::thread thread;
  {
    const MutexLock lock(mutex_);
    ended_ = true;
    if (!all) {
      dropped.swap(waiting_);
    }
    changed_.SignalAll();
    thread.swap(thread_);
  }
  if (thread.joinable()) {
    thread.join();
  }
}

Status SyncBehind::Finish() {
  End(/*all=*/true);
  const MutexLock lock(mutex_);
  return status_;
}

}  // namespace strata
