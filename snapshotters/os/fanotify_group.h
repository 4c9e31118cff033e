// SPDX-License-Identifier: Apache-2.0
//
// FanotifyGroup: pre-content events (Linux 6.14, fanotify(7)): whoever reads a file that is marked
// waits until the event is answered. While any descriptor of the group is open anywhere, nobody
// reads a marked file without an answer; when the last one is closed, everybody is let through.
// Safe from any thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

// An inode of a file system: st_dev, st_ino (stat(2)).
using InodeKey = std::pair<dev_t, ino_t>;
// Of an open file; asking raises no event.
StatusOr<InodeKey> InodeOf(int file_fd);

class FanotifyGroup {
 public:
  // Bytes of one event with its range: fanotify_event_metadata (24) and
  // fanotify_event_info_range (24). One that gets no range fits, too.
  static constexpr size_t kEventBytes = 48;

  struct Event {
    // The file, open for reading and writing without raising events: the reader of the event owns
    // it, and the answer names it by its number. Negative: an overflow, with nothing to answer.
    int fd = -1;
    pid_t pid = 0;  // of the process that reads, in our pid namespace (0: not in it)
    uint64_t offset = 0;
    uint64_t bytes = 0;  // 0: no range was given, the whole file is meant
  };

  FanotifyGroup() = default;
  // A new group, with an unlimited queue. Unimplemented: the kernel lacks pre-content events, or
  // this process may not have them; the message says what is missing.
  static StatusOr<FanotifyGroup> Create();
  // One that a predecessor made. InvalidArgument: `fd` is no fanotify group.
  static StatusOr<FanotifyGroup> Adopt(UniqueFd fd);

  [[nodiscard]] bool valid() const { return fd_.valid(); }
  [[nodiscard]] int fd() const { return fd_.get(); }

  // From now on, whoever opens this file afterwards, or reads it by way of a descriptor that was
  // opened while it was marked, waits for answers. Descriptors that were opened before, and those
  // of events, are not affected. Unimplemented: not on this file system.
  [[nodiscard]] Status Mark(int file_fd) const;
  // No events of the file any more, not even of descriptors that are open. One that has no mark:
  // OK.
  [[nodiscard]] Status Unmark(int file_fd) const;
  // What is marked, as /proc/self/fdinfo tells it.
  [[nodiscard]] StatusOr<std::set<InodeKey>> Marked() const;

  // Takes one event into `buffer`, which has kEventBytes or more, less than twice as many, and may
  // be memory that a successor shares: when the kernel gives the event away, it is in there.
  // Blocks; Cancelled: a signal came.
  [[nodiscard]] StatusOr<Event> Read(std::span<std::byte> buffer) const;
  // The event that Read left in `buffer`; nullopt: there is none.
  static std::optional<Event> Parse(std::span<const std::byte> buffer);

  // Answers the event that carries the number `event_fd`, of this process or of a dead one; the
  // reader goes on, or fails with EIO. NotFound: nothing of that number waits. To be called before
  // the event's descriptor is closed: its number may then be given to another event.
  [[nodiscard]] Status Allow(int event_fd) const;
  [[nodiscard]] Status Deny(int event_fd) const;
  // Denies whatever waits under a number below `end`, for want of knowing what it is. How many did.
  [[nodiscard]] int DenyAllBelow(int end) const;

 private:
  explicit FanotifyGroup(UniqueFd fd) : fd_(std::move(fd)) {}
  [[nodiscard]] Status Answer(int event_fd, uint32_t response) const;

  UniqueFd fd_;
};

}  // namespace strata
