// SPDX-License-Identifier: Apache-2.0
//
// FakeFdStore: keeps descriptors in the test's own process, for presenters that come and go in it.
// For tests only; safe from any thread.
#pragma once

#include <fcntl.h>

#include <cerrno>
#include <map>
#include <string>
#include <utility>

#include "snapshotters/base/fd_store.h"
#include "snapshotters/base/mutex.h"

namespace strata::testing {

class FakeFdStore final : public FdStore {
 public:
  explicit FakeFdStore(bool available = true) : available_(available) {}

  [[nodiscard]] bool available() const override { return available_; }

  UniqueFd Take(const std::string& name) override {
    const MutexLock lock(mutex_);
    const auto found = kept_.find(name);
    return found == kept_.end() ? UniqueFd() : Copy(found->second.get());
  }

  Status Keep(const std::string& name, int fd) override {
    const MutexLock lock(mutex_);
    UniqueFd copy = Copy(fd);
    if (!copy.valid()) {
      return ErrnoStatus(errno, "keep '" + name + "'");
    }
    kept_.insert_or_assign(name, std::move(copy));
    return OkStatus();
  }

  void Drop(const std::string& name) override {
    const MutexLock lock(mutex_);
    kept_.erase(name);
  }

  [[nodiscard]] size_t size() const {
    const MutexLock lock(mutex_);
    return kept_.size();
  }

 private:
  static UniqueFd Copy(int fd) { return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

  const bool available_;
  mutable Mutex mutex_;
  std::map<std::string, UniqueFd> kept_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace strata::testing
