// SPDX-License-Identifier: Apache-2.0
//
// The names in one directory. A reader is used by one thread at a time; the function is stateless
// and safe from any thread.
#pragma once

#include <dirent.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

// One pass over a directory: all entries but "." and "..", in the file system's order.
class EntryReader {
 public:
  // Reads through `dirfd`, from its position, which moves; it must outlive this.
  explicit EntryReader(int dirfd);

  // Valid until the next call. nullptr at the end, and after a failure: then error() is not 0.
  const dirent64* Next();
  [[nodiscard]] int error() const { return error_; }

 private:
  const int dirfd_;
  const std::unique_ptr<char[]> buffer_;
  ssize_t size_ = 0;    // bytes read into the buffer
  ssize_t offset_ = 0;  // of the next entry
  int error_ = 0;
};

// All names but "." and "..", in the file system's order, read through a descriptor of its own.
StatusOr<std::vector<std::string>> DirectoryEntries(int dirfd);

}  // namespace strata
