// SPDX-License-Identifier: Apache-2.0
//
// FdStore: where a process puts descriptors that have to outlive it (a crash, a kill -9, an
// upgrade), and where its successor finds them. Safe from any thread.
#pragma once

#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class FdStore {
 public:
  virtual ~FdStore() = default;

  // Whether there is somebody who keeps what Keep is given when this process is killed, and who
  // starts a successor. Never changes.
  [[nodiscard]] virtual bool available() const = 0;
  // What a predecessor (or this process, since it took it) kept under `name`; an invalid
  // descriptor: nothing. What is taken stays kept, until Drop: a process that dies after Take has
  // lost nothing. O_CLOEXEC is set.
  virtual UniqueFd Take(const std::string& name) = 0;
  // Keeps a duplicate of `fd` in place of what `name` had. When this returns OK, it survives a
  // kill -9 of this process. Names: a-z, 0-9 and '-', at most 32 bytes. FailedPrecondition: there
  // is nobody who keeps. Unavailable: whoever keeps does not answer.
  virtual Status Keep(const std::string& name, int fd) = 0;
  // The successor does not get it any more.
  virtual void Drop(const std::string& name) = 0;
};

// Keeps nothing: for processes that nobody restarts.
class NoFdStore final : public FdStore {
 public:
  [[nodiscard]] bool available() const override { return false; }
  UniqueFd Take(const std::string& /*name*/) override { return {}; }
  Status Keep(const std::string& /*name*/, int /*fd*/) override {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "keep a descriptor: this process has no service manager that would");
  }
  void Drop(const std::string& /*name*/) override {}
};

}  // namespace strata
