// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/fanotify_group.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <climits>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

// include/uapi/linux/fanotify.h of Linux 6.14, younger than the headers that we are built with.
constexpr uint64_t kPreAccess = 0x0010'0000;  // FAN_PRE_ACCESS
constexpr uint8_t kInfoTypeRange = 6;         // FAN_EVENT_INFO_TYPE_RANGE
struct InfoRange {                            // struct fanotify_event_info_range
  uint8_t type;
  uint8_t pad;
  uint16_t bytes;  // of the record
  uint32_t pad2;
  uint64_t offset;
  uint64_t count;
};
// FAN_DENY_ERRNO(EIO): the errno is in the topmost 8 bits.
constexpr uint32_t kDenyWithEio = FAN_DENY | static_cast<uint32_t>(EIO) << 24U;

constexpr size_t kInfoHeaderBytes = 4;  // struct fanotify_event_info_header: type, pad, bytes
static_assert(sizeof(fanotify_event_metadata) + sizeof(InfoRange) == FanotifyGroup::kEventBytes);

constexpr unsigned kGroupFlags = FAN_CLASS_PRE_CONTENT | FAN_CLOEXEC | FAN_UNLIMITED_QUEUE;
constexpr unsigned kEventFlags = O_RDWR | O_LARGEFILE | O_CLOEXEC | O_NOATIME;
constexpr std::string_view kProcName = "anon_inode:[fanotify]";
constexpr size_t kMostFdinfoBytes = size_t{64} << 20;
constexpr unsigned kMinorBits = 20;  // of a device number inside the kernel: MINORBITS

Status Missing(std::string_view why) {
  return MakeStatus(StatusCode::kUnimplemented, why);
}

// The file systems that set SB_I_ALLOW_HSM.
bool IsKnownToAllow(int file_fd) {
  struct statfs found {};
  if (::fstatfs(file_fd, &found) != 0) {
    return false;
  }
  constexpr std::array<unsigned, 3> kTypes = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC};
  return std::find(kTypes.begin(), kTypes.end(), static_cast<unsigned>(found.f_type)) !=
         kTypes.end();
}

Status CannotMark(int error, int file_fd) {
  Status status = ErrnoStatus(error, "mark a file in a fanotify group");
  if (error != EINVAL && error != EOPNOTSUPP && error != ENODEV && error != EXDEV) {
    return status;
  }
  std::string why(StatusMessage(status));
  why += IsKnownToAllow(file_fd)
             ? " (the kernel has no pre-content events: Linux 6.14 with "
               "CONFIG_FANOTIFY_ACCESS_PERMISSIONS has them)"
             : " (the file system has no pre-content events: ext4, xfs and btrfs have them)";
  return Missing(why);
}

}  // namespace

StatusOr<InodeKey> InodeOf(int file_fd) {
  struct stat found {};
  if (::fstat(file_fd, &found) != 0) {
    return ErrnoStatus(errno, "stat a file to be known by its inode");
  }
  return InodeKey{found.st_dev, found.st_ino};
}

StatusOr<FanotifyGroup> FanotifyGroup::Create() {
  UniqueFd fd(::fanotify_init(kGroupFlags, kEventFlags));
  if (fd.valid()) {
    return FanotifyGroup(std::move(fd));
  }
  const int error = errno;
  Status status = ErrnoStatus(error, "make a fanotify group");
  switch (error) {
    case EPERM:
      return Missing(
          std::string(StatusMessage(status)) +
          " (it takes CAP_SYS_ADMIN in the initial user namespace, and a seccomp profile "
          "that lets fanotify_init through)");
    case ENOSYS:
    case EINVAL:
      return Missing(std::string(StatusMessage(status)) +
                     " (the kernel, or a seccomp profile, has no fanotify)");
    default:
      return status;
  }
}

StatusOr<FanotifyGroup> FanotifyGroup::Adopt(UniqueFd fd) {
  const std::string path = "/proc/self/fd/" + std::to_string(fd.get());
  std::array<char, 64> target{};
  const ssize_t bytes = ::readlink(path.c_str(), target.data(), target.size());
  if (bytes < 0) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      StatusMessage(ErrnoStatus(errno, "read link '" + path + "'")));
  }
  if (std::string_view(target.data(), static_cast<size_t>(bytes)) != kProcName) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "adopt a fanotify group: the descriptor is something else");
  }
  return FanotifyGroup(std::move(fd));
}

Status FanotifyGroup::Mark(int file_fd) const {
  return ::fanotify_mark(fd_.get(), FAN_MARK_ADD, kPreAccess, file_fd, nullptr) == 0
             ? OkStatus()
             : CannotMark(errno, file_fd);
}

Status FanotifyGroup::Unmark(int file_fd) const {
  if (::fanotify_mark(fd_.get(), FAN_MARK_REMOVE, kPreAccess, file_fd, nullptr) == 0 ||
      errno == ENOENT) {
    return OkStatus();
  }
  return ErrnoStatus(errno, "remove a mark from a fanotify group");
}

StatusOr<std::set<InodeKey>> FanotifyGroup::Marked() const {
  const std::string path = "/proc/self/fdinfo/" + std::to_string(fd_.get());
  STRATA_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(path, O_RDONLY));
  STRATA_ASSIGN_OR_RETURN(const std::string text, ReadAll(file.get(), path, kMostFdinfoBytes));
  std::set<InodeKey> marked;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    uint64_t inode = 0;
    uint32_t device = 0;
    // proc(5), "/proc/pid/fdinfo". The numbers are the kernel's, so they fit.
    if (std::sscanf(line.c_str(), "fanotify ino:%" SCNx64 " sdev:%" SCNx32, &inode,  // NOLINT
                    &device) == 2) {
      marked.emplace(makedev(device >> kMinorBits, device & ((1U << kMinorBits) - 1)), inode);
    }
    at = end + 1;
  }
  return marked;
}

StatusOr<FanotifyGroup::Event> FanotifyGroup::Read(std::span<std::byte> buffer) const {
  const ssize_t bytes = ::read(fd_.get(), buffer.data(), buffer.size());
  if (bytes < 0) {
    return errno == EINTR ? MakeStatus(StatusCode::kCancelled, "a signal came")
                          : ErrnoStatus(errno, "read an event of a fanotify group");
  }
  const std::optional<Event> event = Parse(buffer.first(static_cast<size_t>(bytes)));
  if (!event.has_value()) {
    return MakeStatus(StatusCode::kDataLoss,
                      "read an event of a fanotify group: it has another form than is known");
  }
  return *event;
}

std::optional<FanotifyGroup::Event> FanotifyGroup::Parse(std::span<const std::byte> buffer) {
  fanotify_event_metadata metadata{};
  if (buffer.size() < sizeof(metadata)) {
    return std::nullopt;
  }
  std::memcpy(&metadata, buffer.data(), sizeof(metadata));
  if (metadata.event_len < sizeof(metadata) || metadata.event_len > buffer.size() ||
      metadata.vers != FANOTIFY_METADATA_VERSION || metadata.metadata_len < sizeof(metadata)) {
    return std::nullopt;
  }
  Event event{.fd = metadata.fd, .pid = metadata.pid};
  for (size_t at = metadata.metadata_len; at + kInfoHeaderBytes <= metadata.event_len;) {
    InfoRange info{};
    std::memcpy(&info, buffer.data() + at, kInfoHeaderBytes);
    if (info.bytes < kInfoHeaderBytes || at + info.bytes > metadata.event_len) {
      return std::nullopt;
    }
    if (info.type == kInfoTypeRange && info.bytes >= sizeof(info)) {
      std::memcpy(&info, buffer.data() + at, sizeof(info));
      event.offset = info.offset;
      event.bytes = info.count;
    }
    at += info.bytes;
  }
  return event;
}

Status FanotifyGroup::Allow(int event_fd) const {
  return Answer(event_fd, FAN_ALLOW);
}

Status FanotifyGroup::Deny(int event_fd) const {
  return Answer(event_fd, kDenyWithEio);
}

int FanotifyGroup::DenyAllBelow(int end) const {
  int denied = 0;
  for (int number = 0; number < end; ++number) {
    const fanotify_response answer{number, kDenyWithEio};
    // More than one may wait under a number: one of this process's predecessor, one of its.
    while (::write(fd_.get(), &answer, sizeof(answer)) == sizeof(answer)) {
      ++denied;
    }
  }
  return denied;
}

Status FanotifyGroup::Answer(int event_fd, uint32_t response) const {
  const fanotify_response answer{event_fd, response};
  if (::write(fd_.get(), &answer, sizeof(answer)) == sizeof(answer)) {
    return OkStatus();
  }
  return ErrnoStatus(errno, "answer event " + std::to_string(event_fd));
}

}  // namespace strata
