// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/listener.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

constexpr int kBacklog = 512;
// How the address of a socket of Bind begins: no service manager names a file like that.
constexpr std::string_view kOwnPrefix = "/proc/self/fd/";
// From linux/un.h, which cannot be included beside sys/un.h: the file that a socket is bound to,
// as an O_PATH descriptor (Linux 4.15).
constexpr unsigned kSiocUnixFile = 0x89e0;

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());  // checked or made to fit
  return address;
}

StatusOr<UniqueFd> NewSocket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) {
    return ErrnoStatus(errno, "make a socket");
  }
  return fd;
}

}  // namespace

// OK when there is nothing, or a socket on which nobody answers.
Status Listener::CheckFree(const std::string& path) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) {
    return errno == ENOENT ? OkStatus() : ErrnoStatus(errno, "stat socket '" + path + "'");
  }
  if (!S_ISSOCK(found.st_mode)) {
    return MakeStatus(
        StatusCode::kFailedPrecondition,
        "socket '" + path + "' is another kind of file: remove it, or choose another path");
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, NewSocket());
  const sockaddr_un address = AddressOf(path);
  const int result =
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  // EAGAIN: it listens, and its queue is full (unix(7)).
  if (result == 0 || errno == EAGAIN || errno == EINPROGRESS) {
    return MakeStatus(
        StatusCode::kFailedPrecondition,
        "socket '" + path +
            "' is in use: another server answers on it; stop that one, or choose another path");
  }
  if (errno == ECONNREFUSED || errno == ENOENT) {
    return OkStatus();
  }
  return ErrnoStatus(errno, "try socket '" + path + "'");
}

bool IsListeningStream(int fd) {
  const auto option = [fd](int name) {
    int value = -1;
    socklen_t length = sizeof(value);
    return ::getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
  };
  return option(SO_DOMAIN) == AF_UNIX && option(SO_TYPE) == SOCK_STREAM &&
         option(SO_ACCEPTCONN) == 1;
}

// Empty when it has none.
std::string BoundAddress(int fd) {
  sockaddr_un address{};
  socklen_t length = sizeof(address);
  const bool named = ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  return named
             ? std::string(address.sun_path, ::strnlen(address.sun_path, sizeof(address.sun_path)))
             : "";
}

// Whether who connects to `path` reaches this socket: its own address is the name that it had for a
// moment. false where we may not ask (CAP_NET_ADMIN).
bool IsFileOf(int fd, const std::string& path) {
  const UniqueFd file(::ioctl(fd, kSiocUnixFile));
  struct stat bound {};
  struct stat found {};
  return file.valid() && ::fstat(file.get(), &bound) == 0 && ::lstat(path.c_str(), &found) == 0 &&
         bound.st_dev == found.st_dev && bound.st_ino == found.st_ino;
}

Status Listener::CheckPath(const std::string& path) {
  if (path.empty() || path.front() != '/' || path.back() == '/') {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "socket '" + path + "': expected an absolute path of a file");
  }
  if (path.size() > Listener::kMaxPathBytes) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "socket '" + path + "' has " + std::to_string(path.size()) +
                          " bytes: expected at most " + std::to_string(Listener::kMaxPathBytes));
  }
  return OkStatus();
}

StatusOr<Listener> Listener::Bind(const std::string& path) {
  STRATA_RETURN_IF_ERROR(CheckPath(path));
  const size_t slash = path.rfind('/');
  const std::string folder = slash == 0 ? "/" : path.substr(0, slash);
  STRATA_RETURN_IF_ERROR(Annotate(MakePath(folder, 0700), "folder of socket '" + path + "'"));
  STRATA_RETURN_IF_ERROR(CheckFree(path));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd folder_fd, OpenFile(folder, O_PATH | O_DIRECTORY));
  // Made under another name and renamed when it is ready, so that nobody finds it half made. By the
  // folder's descriptor, because the longer name might not fit an address.
  const std::string temporary = ".strata-" + std::to_string(::getpid());
  const sockaddr_un address =
      AddressOf(std::string(kOwnPrefix) + std::to_string(folder_fd.get()) + "/" + temporary);
  STRATA_ASSIGN_OR_RETURN(UniqueFd fd, NewSocket());
  (void)::unlinkat(folder_fd.get(), temporary.c_str(), 0);  // of an earlier process with our pid
  struct stat made {};
  const auto publish = [&]() -> Status {
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      return ErrnoStatus(errno, "bind socket '" + path + "'");
    }
    if (::fchmodat(folder_fd.get(), temporary.c_str(), 0600, 0) != 0 ||
        ::listen(fd.get(), kBacklog) != 0 ||
        ::fstatat(folder_fd.get(), temporary.c_str(), &made, AT_SYMLINK_NOFOLLOW) != 0 ||
        ::renameat(folder_fd.get(), temporary.c_str(), folder_fd.get(), path.c_str() + slash + 1) !=
            0) {
      return ErrnoStatus(errno, "publish socket '" + path + "'");
    }
    return OkStatus();
  };
  if (const Status status = publish(); !status.ok()) {
    (void)::unlinkat(folder_fd.get(), temporary.c_str(),
                     0);  // the first error is the one to report
    return status;
  }
  Listener listener(std::move(fd), path);
  listener.owns_file_ = true;
  listener.device_ = made.st_dev;
  listener.inode_ = made.st_ino;
  return listener;
}

StatusOr<std::vector<Listener>> Listener::FromServiceManager(std::vector<UniqueFd> passed,
                                                             const std::string& path) {
  std::vector<Listener> listeners;
  for (UniqueFd& fd : passed) {
    if (!IsListeningStream(fd.get())) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        "descriptor " + std::to_string(fd.get()) +
                            " of the service manager: expected a listening unix stream socket "
                            "(ListenStream=/path in the .socket unit)");
    }
    // Its descriptor flags are set already; accept(2) must not block the loop that polls.
    if (::fcntl(fd.get(), F_SETFL, O_NONBLOCK) != 0) {
      return ErrnoStatus(errno, "set descriptor " + std::to_string(fd.get()) + " to non-blocking");
    }
    const std::string address = BoundAddress(fd.get());
    if (!address.starts_with(kOwnPrefix)) {
      listeners.push_back(Listener(std::move(fd), address.empty() ? "unnamed socket" : address));
    } else if (IsFileOf(fd.get(), path)) {
      listeners.push_back(Listener(std::move(fd), path));
    }
  }
  return listeners;
}

Listener::Listener(Listener&& other) noexcept
    : fd_(std::move(other.fd_)),
      path_(std::move(other.path_)),
      owns_file_(std::exchange(other.owns_file_, false)),
      device_(other.device_),
      inode_(other.inode_) {}

Listener::~Listener() {
  struct stat found {};
  if (owns_file_ && ::lstat(path_.c_str(), &found) == 0 && found.st_dev == device_ &&
      found.st_ino == inode_) {
    (void)::unlink(path_.c_str());  // a file that stays is stale, and the next start replaces it
  }
}

}  // namespace strata
