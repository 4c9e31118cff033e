// SPDX-License-Identifier: Apache-2.0
//
// What is said to whoever keeps descriptors: the datagrams of services/keeper/PROTOCOL.md.
// Stateless: each call has a socket of its own, so a keeper that was started anew is spoken to
// like the old one. Safe from any thread.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class FdStoreChannel {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  // `path` as $NOTIFY_SOCKET has it: absolute, or '@' and a name without a file (unix(7)).
  explicit FdStoreChannel(std::string path) : path_(std::move(path)) {}
  // The socket `name` in the folder `folder`, however long the path of that is.
  FdStoreChannel(std::string folder, std::string name)
      : path_(std::move(name)), folder_(std::move(folder)) {}

  // All of these end at the deadline. Unavailable: nobody there, or no answer. An OK of Add and
  // Remove means sent, and the order is kept: a Barrier that is OK says that all before it is done.
  [[nodiscard]] Status Add(std::string_view name, int fd, Deadline deadline) const;
  [[nodiscard]] Status Remove(std::string_view name, Deadline deadline) const;
  [[nodiscard]] Status Barrier(Deadline deadline) const;
  // Second holder only. All that it keeps, O_CLOEXEC set; of several with one name the first.
  [[nodiscard]] StatusOr<std::map<std::string, UniqueFd>> GetAll(Deadline deadline) const;
  // Second holder only: it ends. OK: it has been told, and has mostly done so.
  [[nodiscard]] Status End(Deadline deadline) const;

 private:
  [[nodiscard]] Status Send(std::string_view message, int fd, Deadline deadline) const;

  std::string path_;
  std::string folder_;
};

}  // namespace strata
