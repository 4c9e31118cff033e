// SPDX-License-Identifier: Apache-2.0
#include "services/fd_store_channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;

// Room for one descriptor beside a message, aligned as cmsg(3) wants it.
struct alignas(cmsghdr) OneDescriptor {
  std::array<char, CMSG_SPACE(sizeof(int))> bytes{};
};

constexpr size_t kMaxName = 255;  // systemd's FDNAME_MAX

Status Unavailable(std::string_view message) {
  return MakeStatus(StatusCode::kUnavailable, message);
}

// What an errno of a keeper's socket tells: whoever should be there is not.
Status Silent(int error, std::string_view action) {
  return Unavailable(StatusMessage(ErrnoStatus(error, action)));
}

int LeftMs(Clock::time_point deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<decltype(left)>(left, 0, 3'600'000));
}

// Waits until `fd` has something to read, or its other end is closed.
bool WaitFor(int fd, int16_t events, Clock::time_point deadline) {
  pollfd polled = {.fd = fd, .events = events, .revents = 0};
  while (true) {
    const int ready = ::poll(&polled, 1, LeftMs(deadline));
    if (ready > 0 || (ready == 0 && LeftMs(deadline) == 0) || (ready < 0 && errno != EINTR)) {
      return ready > 0;
    }
  }
}

// One packet: its text, and the descriptor that came with it.
struct Packet {
  std::string text;
  UniqueFd fd;
};

StatusOr<Packet> Receive(int socket) {
  std::array<char, kMaxName + 1> text{};
  OneDescriptor control;
  iovec part = {.iov_base = text.data(), .iov_len = text.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes.data();
  message.msg_controllen = control.bytes.size();
  const ssize_t count = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (count < 0) {
    return Silent(errno, "receive what the second holder keeps");
  }
  Packet packet{.text = std::string(text.data(), static_cast<size_t>(count)), .fd = {}};
  for (cmsghdr* part_of = CMSG_FIRSTHDR(&message); part_of != nullptr;
       part_of = CMSG_NXTHDR(&message, part_of)) {
    if (part_of->cmsg_level == SOL_SOCKET && part_of->cmsg_type == SCM_RIGHTS) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part_of), sizeof(fd));
      packet.fd = UniqueFd(fd);
    }
  }
  return packet;
}

}  // namespace

Status FdStoreChannel::Send(std::string_view message, int fd, Deadline deadline) const {
  UniqueFd folder;
  std::string path = path_;
  if (!folder_.empty()) {
    STRATA_ASSIGN_OR_RETURN(folder, OpenFile(folder_, O_PATH | O_DIRECTORY));
    path = "/proc/self/fd/" + std::to_string(folder.get()) + "/" + path_;
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "socket '" + path + "' of who keeps descriptors: too long, or empty");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path.front() == '@') {
    address.sun_path[0] = '\0';
  }
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) {
    return ErrnoStatus(errno, "make a socket");
  }
  // The send waits while the receiver's queue is full (unix(7)), at most so long (socket(7)); zero
  // would be without end.
  const int left = std::max(LeftMs(deadline), 1);
  const timeval limit = {.tv_sec = left / 1000, .tv_usec = (left % 1000) * suseconds_t{1000}};
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0) {
    return ErrnoStatus(errno, "limit the time of a send");
  }
  iovec part = {.iov_base = const_cast<char*>(message.data()), .iov_len = message.size()};
  msghdr header{};
  header.msg_name = &address;
  header.msg_namelen = length;
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  OneDescriptor control;
  if (fd >= 0) {
    header.msg_control = control.bytes.data();
    header.msg_controllen = control.bytes.size();
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(fd));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
  }
  while (::sendmsg(socket.get(), &header, MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) {
      return Silent(errno, "send to '" + path_ + "'");
    }
  }
  return OkStatus();
}

Status FdStoreChannel::Add(std::string_view name, int fd, Deadline deadline) const {
  return Send("FDSTORE=1\nFDNAME=" + std::string(name), fd, deadline);
}

Status FdStoreChannel::Remove(std::string_view name, Deadline deadline) const {
  return Send("FDSTOREREMOVE=1\nFDNAME=" + std::string(name), /*fd=*/-1, deadline);
}

Status FdStoreChannel::Barrier(Deadline deadline) const {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "make a pipe");
  }
  const UniqueFd mine(ends[0]);
  UniqueFd theirs(ends[1]);
  STRATA_RETURN_IF_ERROR(Send("BARRIER=1", theirs.get(), deadline));
  theirs.Reset();
  if (!WaitFor(mine.get(), /*events=*/0, deadline)) {  // POLLHUP comes unasked
    return Unavailable("wait for '" + path_ + "': no answer in time");
  }
  return OkStatus();
}

StatusOr<std::map<std::string, UniqueFd>> FdStoreChannel::GetAll(Deadline deadline) const {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoStatus(errno, "make a pair of sockets");
  }
  const UniqueFd mine(ends[0]);
  UniqueFd theirs(ends[1]);
  STRATA_RETURN_IF_ERROR(Send("FDGET=1", theirs.get(), deadline));
  theirs.Reset();
  std::map<std::string, UniqueFd> kept;
  while (true) {
    if (!WaitFor(mine.get(), POLLIN, deadline)) {
      return Unavailable("ask '" + path_ + "' for what it keeps: no answer in time");
    }
    STRATA_ASSIGN_OR_RETURN(Packet packet, Receive(mine.get()));
    if (packet.text == ".") {
      return kept;
    }
    if (packet.text.empty()) {
      return Unavailable("ask '" + path_ + "' for what it keeps: it ended in the middle");
    }
    if (packet.fd.valid()) {
      kept.emplace(std::move(packet.text), std::move(packet.fd));
    }
  }
}

Status FdStoreChannel::End(Deadline deadline) const {
  STRATA_RETURN_IF_ERROR(Send("FDEND=1", /*fd=*/-1, deadline));
  // It ends without a word, and the barrier's descriptor is closed with its queue. A refusal tells
  // that it has ended already; one that is slow ends later.
  (void)Barrier(deadline);
  return OkStatus();
}

}  // namespace strata
