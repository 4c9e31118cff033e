// SPDX-License-Identifier: Apache-2.0
//
// DiskMount: a file as a disk: attached to a loop device, and its file system mounted. For tests
// only; needs root.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "snapshotters/base/status.h"

namespace strata::testing {

// Makes `image` anew: `size_bytes` (sparse) with an empty file system of that type. The file keeps
// its inode. NotFound where mkfs for it is missing.
Status MakeDisk(const std::string& image, int64_t size_bytes, const std::string& type);

class DiskMount {
 public:
  // `direct`: the loop device does direct I/O, many writes at a time. Where the kernel does not
  // know the file system: NotFound.
  static StatusOr<std::unique_ptr<DiskMount>> Create(const std::string& disk,
                                                     const std::string& type,
                                                     const std::string& target, bool direct);
  // Unmounts, and waits for a while for its last users; after that lazily.
  ~DiskMount();
  DiskMount(const DiskMount&) = delete;
  DiskMount& operator=(const DiskMount&) = delete;

 private:
  explicit DiskMount(std::string target) : target_(std::move(target)) {}

  std::string target_;
};

}  // namespace strata::testing
