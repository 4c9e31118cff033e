// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/erofs_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace strata {
namespace {

StatusOr<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) {
    return ErrnoStatus(errno, "duplicate a descriptor");
  }
  return copy;
}

}  // namespace

ErofsFiles::ErofsFiles() : own_pid_(::getpid()) {}

StatusOr<UniqueFd> ErofsFiles::Open(int directory_fd, const std::string& name) {
  STRATA_ASSIGN_OR_RETURN(UniqueFd fd, ImageFiles::Open(directory_fd, name));
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0) {
    return ErrnoStatus(errno, "stat '" + name + "'");
  }
  if (!S_ISREG(found.st_mode) || found.st_size == 0) {
    return fd;
  }
  const InodeKey inode{found.st_dev, found.st_ino};
  const int plain = fd.get();
  STRATA_ASSIGN_OR_RETURN(fd, AdoptByRead(inode, std::move(fd), name));
  if (fd.get() != plain) {
    STRATA_RETURN_IF_ERROR(Remember(inode, directory_fd, fd.get()));
  }
  return fd;
}

StatusOr<UniqueFd> ErofsFiles::AdoptByRead(const InodeKey& inode, UniqueFd plain,
                                           const std::string& name) {
  {
    const MutexLock lock(mutex_);
    while (opening_.contains(inode)) {
      changed_.Wait(mutex_);  // for another Open of the same file
    }
    opening_.emplace(inode, Opening{});
    ++opening_count_;
  }
  char first = 0;
  const ssize_t bytes = ::pread(plain.get(), &first, 1, 0);
  const int error = errno;
  const MutexLock lock(mutex_);
  Opening opening = std::move(opening_.extract(inode).mapped());
  --opening_count_;
  changed_.SignalAll();
  if (bytes < 0) {
    return ErrnoStatus(error, "read '" + name + "'");
  }
  if (opening.came && !opening.adopted.valid()) {
    return MakeStatus(StatusCode::kResourceExhausted,
                      "open '" + name + "': its event's descriptor could not be duplicated");
  }
  return opening.came ? std::move(opening.adopted) : std::move(plain);
}

bool ErofsFiles::Adopt(const InodeKey& inode, const FanotifyGroup::Event& event) {
  if (event.pid != own_pid_ || event.offset != 0) {
    return false;
  }
  const MutexLock lock(mutex_);
  const auto found = opening_.find(inode);
  if (found == opening_.end() || found->second.came) {
    return false;
  }
  found->second.came = true;
  found->second.adopted = UniqueFd(::fcntl(event.fd, F_DUPFD_CLOEXEC, 0));
  return true;
}

Status ErofsFiles::Remember(const InodeKey& inode, int directory_fd, int image_fd) {
  STRATA_ASSIGN_OR_RETURN(UniqueFd directory, Duplicate(directory_fd));
  STRATA_ASSIGN_OR_RETURN(UniqueFd image, Duplicate(image_fd));
  const MutexLock lock(mutex_);
  if (remembers_) {
    marked_.insert_or_assign(inode, Marked{inode, std::move(directory), std::move(image)});
  }
  return OkStatus();
}

bool ErofsFiles::WasMarked(const InodeKey& inode) const {
  const MutexLock lock(mutex_);
  return marked_.contains(inode);
}

std::vector<ErofsFiles::Marked> ErofsFiles::TakeMarked() {
  std::vector<Marked> taken;
  const MutexLock lock(mutex_);
  remembers_ = false;
  for (auto& [inode, marked] : marked_) {
    taken.push_back(std::move(marked));
  }
  marked_.clear();
  return taken;
}

}  // namespace strata
