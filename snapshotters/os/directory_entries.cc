// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/directory_entries.h"

#include <dirent.h>
#include <fcntl.h>

#include <cerrno>

#include "snapshotters/base/unique_fd.h"

namespace strata {

StatusOr<std::vector<std::string>> DirectoryEntries(int dirfd) {
  UniqueFd copy(::openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!copy.valid()) {
    return ErrnoStatus(errno, "open a directory");
  }
  DIR* stream = ::fdopendir(copy.get());
  if (stream == nullptr) {
    return ErrnoStatus(errno, "read a directory");
  }
  (void)copy.Release();  // closedir closes it
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") {
      names.push_back(name);
    }
  }
  const int error = errno;
  (void)::closedir(stream);  // nothing was written through it
  if (error != 0) {
    return ErrnoStatus(error, "read a directory");
  }
  return names;
}

}  // namespace strata
