// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fuse_connection.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string_view>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {
namespace {

// Newer than the headers that we are built with (include/uapi/linux/fuse.h of Linux 6.9).
constexpr uint32_t kHasResend = uint32_t{1} << (39 - 32);  // FUSE_HAS_RESEND, of flags2
constexpr int32_t kNotifyResend = 7;                       // FUSE_NOTIFY_RESEND

const dev_t kFuseDevice = ::makedev(10, 229);  // admin-guide/devices.txt

// What the memory file holds before the INIT request. The letters change with what node ids mean
// and with what is agreed upon in the answer to INIT: the kernel goes on with the old agreement.
constexpr std::array<char, 8> kMagic = {'s', 't', 'r', 'a', 'f', 'u', 's', '1'};
struct KeptHeader {
  std::array<char, 8> magic;
  uint64_t mount_device;
};
constexpr size_t kMaxInitBytes = 4096;
constexpr int kSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

std::string InitName(const std::string& name) {
  return name + "-init";
}

StatusOr<UniqueFd> OpenDevice() {
  StatusOr<UniqueFd> device = OpenFile("/dev/fuse", O_RDWR);
  if (device.ok()) {
    return device;
  }
  return MakeStatus(StatusCode::kUnimplemented, StatusMessage(device.status()));
}

Status MountDevice(int device, const std::string& mountpoint) {
  // By mount(2), not by libfuse: it would run mount(8) where /etc/mtab is a file, and its unmount
  // closes the device under the threads that read from it. allow_other: containers are other users,
  // whom default_permissions hold to the modes.
  const strata::Mount mount{
      "fuse.strata",
      "strata",
      "",
      {"ro", "fd=" + std::to_string(device), "rootmode=40000",
       "user_id=" + std::to_string(::geteuid()), "group_id=" + std::to_string(::getegid()),
       "allow_other", "default_permissions",
       "max_read=" + std::to_string(FuseConnection::kMaxRequestBytes)}};
  const Status status = MountAll({&mount, 1}, mountpoint);
  const int error = StatusErrno(status).value_or(0);
  // ENODEV: no such file system; EPERM: not in this user namespace.
  return error == ENODEV || error == EPERM
             ? MakeStatus(StatusCode::kUnimplemented, StatusMessage(status))
             : status;
}

// The st_dev of what is mounted there. AT_STATX_DONT_SYNC: FUSE answers from what it has, without a
// request (statx(2)).
StatusOr<dev_t> MountedDevice(const std::string& mountpoint) {
  struct statx attributes {};
  if (::statx(AT_FDCWD, mountpoint.c_str(), AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, STATX_TYPE,
              &attributes) != 0) {
    return ErrnoStatus(errno, "find out what is mounted on '" + mountpoint + "'");
  }
  return ::makedev(attributes.stx_dev_major, attributes.stx_dev_minor);
}

// mount(2) has queued it, so this does not wait.
StatusOr<std::string> ReadInit(int device) {
  std::string buffer(size_t{FUSE_MIN_READ_BUFFER}, '\0');
  ssize_t bytes = -1;
  do {
    bytes = ::read(device, buffer.data(), buffer.size());
  } while (bytes < 0 && errno == EINTR);
  if (bytes < 0) {
    return ErrnoStatus(errno, "read the first request of a FUSE mount");
  }
  buffer.resize(static_cast<size_t>(bytes));
  return buffer;
}

template <typename T>
T Parse(std::string_view bytes, size_t offset) {
  T value{};
  std::memcpy(&value, bytes.data() + offset, std::min(sizeof(T), bytes.size() - offset));
  return value;
}

Status Unfit(const std::string& why) {
  return MakeStatus(StatusCode::kFailedPrecondition, "resume FUSE mount: " + why);
}

}  // namespace

Status FuseConnection::CheckInit() const {
  constexpr size_t kShortest = sizeof(fuse_in_header) + offsetof(fuse_init_in, flags2);
  if (init_.size() < kShortest || init_.size() > kMaxInitBytes) {
    return Unfit("the first request has " + std::to_string(init_.size()) + " bytes");
  }
  const auto header = Parse<fuse_in_header>(init_, 0);
  const auto init = Parse<fuse_init_in>(init_, sizeof(header));
  if (header.len != init_.size() || header.opcode != FUSE_INIT) {
    return Unfit("the first request is none");
  }
  if (init.major != FUSE_KERNEL_VERSION) {
    return Unfit("protocol version " + std::to_string(init.major));
  }
  return OkStatus();
}

bool FuseConnection::can_resend() const {
  const auto init = Parse<fuse_init_in>(init_, sizeof(fuse_in_header));
  return (init.flags & FUSE_INIT_EXT) != 0 && (init.flags2 & kHasResend) != 0;
}

Status FuseConnection::CheckMount(const std::string& mountpoint) const {
  struct stat attributes {};
  if (::fstat(device_.get(), &attributes) != 0 || !S_ISCHR(attributes.st_mode) ||
      attributes.st_rdev != kFuseDevice) {
    return Unfit("what was kept is no FUSE device");
  }
  // While the kernel has the connection it has the mount's superblock, whose number nobody else
  // gets.
  pollfd state{.fd = device_.get(), .events = POLLOUT, .revents = 0};
  if (::poll(&state, 1, /*timeout=*/0) < 0) {
    return ErrnoStatus(errno, "resume FUSE mount: look at its device");
  }
  if (state.revents != POLLOUT) {  // fuse_dev_poll(): or POLLERR
    return Unfit("the connection has ended");
  }
  STRATA_ASSIGN_OR_RETURN(const dev_t found, MountedDevice(mountpoint));
  return found == mount_device_ ? OkStatus() : Unfit("something else is on '" + mountpoint + "'");
}

StatusOr<FuseConnection> FuseConnection::Open(const std::string& mountpoint) {
  FuseConnection opened;
  STRATA_ASSIGN_OR_RETURN(opened.device_, OpenDevice());
  STRATA_RETURN_IF_ERROR(MountDevice(opened.device_.get(), mountpoint));
  ScopedMount mount(mountpoint);
  STRATA_ASSIGN_OR_RETURN(opened.mount_device_, MountedDevice(mountpoint));
  STRATA_ASSIGN_OR_RETURN(opened.init_, ReadInit(opened.device_.get()));
  STRATA_RETURN_IF_ERROR(opened.CheckInit());
  mount.Detach();
  return opened;
}

StatusOr<FuseConnection> FuseConnection::Take(FdStore& store, const std::string& name,
                                              const std::string& mountpoint) {
  FuseConnection taken;
  taken.device_ = store.Take(name);
  const UniqueFd init = store.Take(InitName(name));
  if (!taken.device_.valid() && !init.valid()) {
    return MakeStatus(StatusCode::kNotFound, "resume FUSE mount: nothing was kept");
  }
  if (!taken.device_.valid() || !init.valid()) {
    return Unfit("half of it was kept");
  }
  std::string kept(sizeof(KeptHeader) + kMaxInitBytes + 1, '\0');
  const ssize_t bytes = ::pread(init.get(), kept.data(), kept.size(), 0);
  if (bytes < 0) {
    return ErrnoStatus(errno, "resume FUSE mount: read what was kept");
  }
  kept.resize(static_cast<size_t>(bytes));
  if (kept.size() < sizeof(KeptHeader) || Parse<KeptHeader>(kept, 0).magic != kMagic) {
    return Unfit("another version kept it");
  }
  taken.mount_device_ = Parse<KeptHeader>(kept, 0).mount_device;
  taken.init_ = kept.substr(sizeof(KeptHeader));
  STRATA_RETURN_IF_ERROR(taken.CheckInit());
  if (!taken.can_resend()) {
    return Unfit("the kernel does not send requests again");
  }
  STRATA_RETURN_IF_ERROR(taken.CheckMount(mountpoint));
  taken.is_resumed_ = true;
  return taken;
}

Status FuseConnection::Keep(FdStore& store, const std::string& name) const {
  const UniqueFd file(::memfd_create(InitName(name).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid()) {
    return ErrnoStatus(errno, "make a memory file");
  }
  const KeptHeader header{.magic = kMagic, .mount_device = mount_device_};
  std::string content(reinterpret_cast<const char*>(&header), sizeof(header));
  content += init_;
  STRATA_RETURN_IF_ERROR(WriteAll(file.get(), content, "a memory file"));
  if (::fcntl(file.get(), F_ADD_SEALS, kSeals) != 0) {
    return ErrnoStatus(errno, "seal a memory file");
  }
  STRATA_RETURN_IF_ERROR(store.Keep(InitName(name), file.get()));
  return store.Keep(name, device_.get());
}

void FuseConnection::Drop(FdStore& store, const std::string& name) {
  store.Drop(name);
  store.Drop(InitName(name));
}

Status ResendRequests(int device) {
  const fuse_out_header notification{
      .len = sizeof(fuse_out_header), .error = kNotifyResend, .unique = 0};
  if (::write(device, &notification, sizeof(notification)) !=
      static_cast<ssize_t>(sizeof(notification))) {
    return ErrnoStatus(errno, "ask the kernel to send FUSE requests again");
  }
  return OkStatus();
}

}  // namespace strata
