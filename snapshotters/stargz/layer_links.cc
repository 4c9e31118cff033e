// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/stargz/layer_links.h"

#include <absl/strings/numbers.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/os/directory_entries.h"

namespace strata {
namespace {

constexpr std::string_view kLinkName = "/layer";
constexpr std::string_view kLinkTarget = "../../l/";
constexpr size_t kLongestTarget = 64;

// 0: not the text of one of our links.
uint64_t NumberIn(std::string_view target) {
  uint64_t number = 0;
  if (!target.starts_with(kLinkTarget) ||
      !absl::SimpleAtoi(std::string(target.substr(kLinkTarget.size())), &number)) {
    return 0;
  }
  return number;
}

}  // namespace

Status LayerLinks::Make(SnapshotId id, uint64_t number) {
  const std::string folder = std::to_string(id);
  const std::string link = folder + std::string(kLinkName);
  const std::string target = std::string(kLinkTarget) + std::to_string(number);
  STRATA_FAULT_POINT("link.make");
  if (::symlinkat(target.c_str(), snapshots_fd_, link.c_str()) != 0) {
    return ErrnoStatus(errno, "link 'snapshots/" + link + "' to '" + target + "'");
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenAt(snapshots_fd_, folder, O_RDONLY | O_DIRECTORY));
  STRATA_FAULT_POINT("link.sync");
  if (::fsync(fd.get()) != 0) {
    return ErrnoStatus(errno, "sync 'snapshots/" + folder + "'");
  }
  const MutexLock lock(mutex_);
  known_.insert_or_assign(id, number);
  return OkStatus();
}

StatusOr<std::optional<uint64_t>> LayerLinks::Read(const std::string& folder) const {
  const std::string link = folder + std::string(kLinkName);
  std::array<char, kLongestTarget> target{};
  const ssize_t length = ::readlinkat(snapshots_fd_, link.c_str(), target.data(), target.size());
  if (length < 0) {
    // ENOTDIR: `folder` is a file, and none of ours.
    if (errno == ENOENT || errno == ENOTDIR) {
      return std::nullopt;
    }
    return ErrnoStatus(errno, "read link 'snapshots/" + link + "'");
  }
  const uint64_t number = NumberIn({target.data(), static_cast<size_t>(length)});
  if (number == 0) {
    return MakeStatus(StatusCode::kDataLoss, "'snapshots/" + link + "': expected a link to '" +
                                                 std::string(kLinkTarget) + "NUMBER'");
  }
  return number;
}

StatusOr<std::optional<uint64_t>> LayerLinks::Find(SnapshotId id) {
  {
    const MutexLock lock(mutex_);
    if (const auto found = known_.find(id); found != known_.end()) {
      return found->second;
    }
  }
  STRATA_ASSIGN_OR_RETURN(const std::optional<uint64_t> number, Read(std::to_string(id)));
  const MutexLock lock(mutex_);
  known_.insert_or_assign(id, number);
  return number;
}

void LayerLinks::Forget(SnapshotId id) {
  // Where this fails the folder's own removal takes the link with it, only later.
  (void)::unlinkat(snapshots_fd_, (std::to_string(id) + std::string(kLinkName)).c_str(), 0);
  const MutexLock lock(mutex_);
  known_.erase(id);
}

StatusOr<std::set<uint64_t>> LayerLinks::All() const {
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> folders, DirectoryEntries(snapshots_fd_));
  std::set<uint64_t> numbers;
  for (const std::string& folder : folders) {
    const StatusOr<std::optional<uint64_t>> number = Read(folder);
    if (number.status().code() == StatusCode::kDataLoss) {
      continue;  // it names no layer, so there is none to keep for it
    }
    STRATA_RETURN_IF_ERROR(number.status());
    if (number->has_value()) {
      numbers.insert(**number);
    }
  }
  return numbers;
}

}  // namespace strata
