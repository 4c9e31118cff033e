// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/directory_entries.h"

#include <fcntl.h>

#include <cerrno>
#include <string_view>

#include "snapshotters/base/unique_fd.h"

namespace strata {
namespace {

constexpr size_t kReadBytes = size_t{32} * 1024;

}  // namespace

// What operator new gives is aligned for any dirent64.
EntryReader::EntryReader(int dirfd)
    : dirfd_(dirfd), buffer_(std::make_unique_for_overwrite<char[]>(kReadBytes)) {}

const dirent64* EntryReader::Next() {
  while (true) {
    if (offset_ == size_) {
      offset_ = 0;
      size_ = ::getdents64(dirfd_, buffer_.get(), kReadBytes);
      if (size_ <= 0) {
        error_ = size_ < 0 ? errno : 0;
        size_ = 0;
        return nullptr;
      }
    }
    const auto* entry = reinterpret_cast<const dirent64*>(buffer_.get() + offset_);
    offset_ += entry->d_reclen;
    const std::string_view name(entry->d_name);
    if (name != "." && name != "..") {
      return entry;
    }
  }
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
