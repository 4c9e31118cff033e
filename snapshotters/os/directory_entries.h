// SPDX-License-Identifier: Apache-2.0
//
// The names in one directory. A batch and a reader are used by one thread at a time; the function
// is stateless and safe from any thread.
#pragma once

#include <dirent.h>
#include <sys/types.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

// As many entries of a directory as one getdents64(2) gives, but for "." and "..", in the file
// system's order. (Sorted by inode number, a walk on ext4 took no less time, cold or warm.)
class EntryBatch {
 public:
  // The next ones of `dirfd`, from its position, which moves. False at the end, and after a
  // failure: then error() is not 0.
  bool Read(int dirfd);
  [[nodiscard]] int error() const { return error_; }

  // Valid until the next Read; may be empty before the end.
  [[nodiscard]] std::span<const dirent64* const> entries() const { return entries_; }

 private:
  std::unique_ptr<char[]> buffer_;
  std::vector<const dirent64*> entries_;
  int error_ = 0;
};

// One pass over a directory: all entries but "." and "..", in the file system's order.
class EntryReader {
 public:
  // Reads through `dirfd`, from its position, which moves; it must outlive this.
  explicit EntryReader(int dirfd) : dirfd_(dirfd) {}

  // Valid until the next call. nullptr at the end, and after a failure: then error() is not 0.
  const dirent64* Next();
  [[nodiscard]] int error() const { return batch_.error(); }

 private:
  const int dirfd_;
  EntryBatch batch_;
  size_t taken_ = 0;  // of the batch
};

// All names but "." and "..", in the file system's order, read through a descriptor of its own.
StatusOr<std::vector<std::string>> DirectoryEntries(int dirfd);

}  // namespace strata
