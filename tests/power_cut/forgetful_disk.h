// SPDX-License-Identifier: Apache-2.0
//
// ForgetfulDisk: a disk with a volatile write cache and a switch. What was written since the last
// completed flush is lost in part when the power is cut. It is a FUSE file system of one file in a
// child process, so that the kernel's users of the disk never wait for a thread of their own
// process. For tests only; needs root; one thread.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata::testing {

struct ForgetfulDiskOptions {
  std::string image;        // file that holds the content; exists, and keeps its size
  std::string mount_point;  // an empty folder
  // Flushes are answered and do nothing. A cut then loses everything after some moment, in order,
  // so that the file system is whole and only too old.
  bool lie = false;
};

struct CutReport {
  uint64_t volatile_blocks = 0;  // blocks of 512 bytes that were written and not flushed
  uint64_t dropped_blocks = 0;   // of those, lost
};

class ForgetfulDisk {
 public:
  // Call it before the process has threads. The disk is off.
  static StatusOr<std::unique_ptr<ForgetfulDisk>> Create(const ForgetfulDiskOptions& options);
  ~ForgetfulDisk();
  ForgetfulDisk(const ForgetfulDisk&) = delete;
  ForgetfulDisk& operator=(const ForgetfulDisk&) = delete;

  // The file to attach. Opened while the disk is off, or before the last cut, it only fails.
  [[nodiscard]] const std::string& path() const { return path_; }

  // What the image holds now is durable, and requests are served.
  Status PowerOn();
  // The power goes off by itself right after that many more writes. Cut is still to follow.
  Status GoOffAfter(uint64_t writes);
  // From now on every request fails. Afterwards the image holds what was flushed, and of the later
  // writes what `seed` says: whole writes, or single pages of 4 KiB of them. A page is never torn:
  // ext4 takes that for granted of its superblock, xfs of all metadata, and both fail to mount with
  // a bad checksum otherwise.
  StatusOr<CutReport> Cut(uint64_t seed);
  // Whether the power has gone. Set before the first request fails, so whatever happened while this
  // was still false, a flush too, happened on a disk with power. Any thread.
  [[nodiscard]] bool off() const;

  // Since Create.
  [[nodiscard]] uint64_t writes() const;
  [[nodiscard]] uint64_t flushes() const;

 private:
  struct Shared;
  struct Request;
  struct Answer;
  class Server;

  ForgetfulDisk(std::string mount_point, Shared* shared);
  StatusOr<CutReport> Ask(const Request& request);

  std::string mount_point_;
  std::string path_;
  Shared* shared_;  // with the child
  UniqueFd control_;
  pid_t child_ = -1;
};

}  // namespace strata::testing
