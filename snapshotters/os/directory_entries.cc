// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/directory_entries.h"

#include <fcntl.h>

#include <cerrno>
#include <string_view>

#include "snapshotters/base/unique_fd.h"

namespace strata {
namespace {

// Some 2,000 entries, so that a call more or less does not matter.
constexpr size_t kReadBytes = size_t{64} * 1024;

}  // namespace

bool EntryBatch::Read(int dirfd) {
  entries_.clear();
  if (buffer_ == nullptr) {
    // What operator new gives is aligned for any dirent64.
    buffer_ = std::make_unique_for_overwrite<char[]>(kReadBytes);
  }
  const ssize_t size = ::getdents64(dirfd, buffer_.get(), kReadBytes);
  if (size <= 0) {
    error_ = size < 0 ? errno : 0;
    return false;
  }
  for (ssize_t offset = 0; offset < size;) {
    const auto* entry = reinterpret_cast<const dirent64*>(buffer_.get() + offset);
    offset += entry->d_reclen;
    const std::string_view name(entry->d_name);
    if (name != "." && name != "..") {
      entries_.push_back(entry);
    }
  }
  return true;
}

const dirent64* EntryReader::Next() {
  while (taken_ == batch_.entries().size()) {
    taken_ = 0;
    if (!batch_.Read(dirfd_)) {
      return nullptr;
    }
  }
  return batch_.entries()[taken_++];
}

StatusOr<std::vector<std::string>> DirectoryEntries(int dirfd) {
  const UniqueFd copy(::openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!copy.valid()) {
    return ErrnoStatus(errno, "open a directory");
  }
  std::vector<std::string> names;
  EntryReader entries(copy.get());
  while (const dirent64* entry = entries.Next()) {
    names.emplace_back(entry->d_name);
  }
  if (entries.error() != 0) {
    return ErrnoStatus(entries.error(), "read a directory");
  }
  return names;
}

}  // namespace strata
