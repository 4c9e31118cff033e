// SPDX-License-Identifier: Apache-2.0
#include "services/keeper/kept_fds.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "services/keeper/own_process.h"

namespace strata::keeper {
namespace {

constexpr std::string_view kDefaultName = "stored";  // of systemd, for what has no valid name
constexpr int kQueryDuplicate = 1027;                // F_DUPFD_QUERY, Linux 6.10

// Whether both are one open file description. Where nobody can say, it is "no": two of /dev/fuse
// have one inode, and to take them for one would lose a mount.
bool SameOpenFile(int left, int right) {
  if (const int same = ::fcntl(left, kQueryDuplicate, right); same >= 0) {
    return same == 1;
  }
  return ::syscall(SYS_kcmp, ::getpid(), ::getpid(), KCMP_FILE, left, right) == 0;
}

bool ValidName(std::string_view name) {
  const auto allowed = [](char c) { return c >= ' ' && c <= '~' && c != ':'; };
  return !name.empty() && name.size() <= KeptFds::kLongestName &&
         std::all_of(name.begin(), name.end(), allowed);
}

// A datagram of one piece, with room beside it for a number of bytes.
template <size_t kControlBytes>
struct Datagram {
  Datagram(char* text, size_t size) : data{.iov_base = text, .iov_len = size} {
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
  }
  iovec data;
  msghdr header{};
  alignas(cmsghdr) std::array<char, kControlBytes> control{};
};

constexpr size_t kCredentialBytes = CMSG_SPACE(sizeof(ucred));

}  // namespace

bool Message::Receive(int socket, pid_t sender, uid_t user) {
  CloseFds();
  size_ = 0;
  // Who sent it is looked at first: to close a descriptor can wait for ever (a FUSE file's flush),
  // and those of a datagram that is dropped unreceived are released without one.
  Datagram<kCredentialBytes> peeked(text_.data(), 0);
  if (::recvmsg(socket, &peeked.header, MSG_PEEK | MSG_DONTWAIT) < 0) {
    return false;
  }
  ucred from = {.pid = 0, .uid = static_cast<uid_t>(-1)};
  const cmsghdr* part = CMSG_FIRSTHDR(&peeked.header);
  if (part != nullptr && part->cmsg_type == SCM_CREDENTIALS) {
    std::memcpy(&from, CMSG_DATA(part), sizeof(from));
  }
  if (from.uid != 0 && from.uid != user && (from.pid != sender || sender == 0)) {
    return ::recv(socket, text_.data(), 0, MSG_DONTWAIT) >= 0;
  }
  Datagram<kCredentialBytes + CMSG_SPACE(kMostFds * sizeof(int))> whole(text_.data(), text_.size());
  const ssize_t size = ::recvmsg(socket, &whole.header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  part = CMSG_FIRSTHDR(&whole.header);
  part = size < 0 || part == nullptr ? nullptr
                                     : CMSG_NXTHDR(&whole.header, const_cast<cmsghdr*>(part));
  if (part != nullptr && part->cmsg_type == SCM_RIGHTS) {
    fd_count_ = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    std::memcpy(fds_.data(), CMSG_DATA(part), fd_count_ * sizeof(int));
  }
  if ((whole.header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    Say("a message did not fit, ignoring it");
    CloseFds();
  } else if (size > 0) {
    size_ = static_cast<size_t>(size);
  }
  return size >= 0;
}

std::optional<std::string_view> Message::Value(std::string_view key) const {
  std::string_view rest(text_.data(), size_);
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    if (line.substr(0, key.size()) == key) {
      return line.substr(key.size());
    }
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  }
  return std::nullopt;
}

void Message::CloseFds() {
  for (int fd = TakeFd(); fd >= 0; fd = TakeFd()) {
    (void)::close(fd);
  }
  fd_count_ = next_fd_ = 0;
}

void KeptFds::Keep(std::string_view name, int fd, bool pinned) {
  const bool known = std::any_of(begin(), end(), [&](const Kept& kept) {
    return name == kept.name.data() && SameOpenFile(kept.fd, fd);
  });
  if (known || size_ == kMost) {
    Say("'%.*s' is %s", static_cast<int>(name.size()), name.data(),
        known ? "kept already" : "one too many to keep, ignoring it");
    (void)::close(fd);
    return;
  }
  Kept& kept = kept_[size_++];
  kept = {.fd = fd, .pinned = pinned, .name = {}};
  (void)name.copy(kept.name.data(), kLongestName);
}

void KeptFds::Remove(std::string_view name) {
  size_t left = 0;
  for (size_t i = 0; i < size_; ++i) {
    if (kept_[i].pinned || name != kept_[i].name.data()) {
      kept_[left++] = kept_[i];
    } else {
      (void)::close(kept_[i].fd);
    }
  }
  size_ = left;
}

void KeptFds::Apply(Message& message) {
  if (message.Says("BARRIER=1")) {
    return;  // answered when the message is closed
  }
  const std::string_view name = message.Value("FDNAME=").value_or("");
  const bool valid = ValidName(name);
  // In this order: both in one message replace what the name has.
  if (message.Says("FDSTOREREMOVE=1") && valid) {
    Remove(name);
  }
  if (message.Says("FDSTORE=1")) {
    for (int fd = message.TakeFd(); fd >= 0; fd = message.TakeFd()) {
      Keep(valid ? name : kDefaultName, fd, /*pinned=*/false);
    }
  }
}

bool SendWithFd(int socket, std::string_view text, int fd) {
  Datagram<CMSG_SPACE(sizeof(int))> whole(const_cast<char*>(text.data()), text.size());
  if (fd < 0) {
    whole.header.msg_controllen = 0;
  } else {
    cmsghdr* part = CMSG_FIRSTHDR(&whole.header);
    *part = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    std::memcpy(CMSG_DATA(part), &fd, sizeof(fd));
  }
  return ::sendmsg(socket, &whole.header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

}  // namespace strata::keeper
