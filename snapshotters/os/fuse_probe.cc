// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/fuse_probe.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string_view>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/mount_ops.h"
#include "snapshotters/os/probe_directory.h"

namespace strata {
namespace {

constexpr int kPatienceMs = 2000;
// The least buffer that the kernel takes for a read (FUSE_MIN_READ_BUFFER).
constexpr size_t kRequestBytes = 8192;

// Bits of fuse_init_in.flags, and from 32 on of its flags2; the later ones are not in the headers
// of Linux 6.1.
constexpr std::pair<int, std::string_view> kFeatures[] = {
    {0, "async-read"},   {7, "splice-write"},   {8, "splice-move"},   {9, "splice-read"},
    {13, "readdirplus"}, {17, "no-open"},       {18, "parallel-dir"}, {20, "posix-acl"},
    {22, "max-pages"},   {23, "symlink-cache"}, {24, "no-opendir"},   {25, "explicit-inval"},
    {37, "passthrough"}, {39, "resend"},        {40, "idmap"},        {41, "io-uring"},
};

Status Failed(std::string_view step, const Status& why) {
  return MakeStatus(StatusCode::kFailedPrecondition,
                    std::string(step) + ": " + std::string(StatusMessage(why)));
}

// The first request of a connection, FUSE_INIT.
StatusOr<FuseOffer> ReadOffer(int device_fd) {
  pollfd waiting = {.fd = device_fd, .events = POLLIN, .revents = 0};
  if (::poll(&waiting, 1, kPatienceMs) <= 0) {
    return MakeStatus(StatusCode::kFailedPrecondition, "the kernel asks nothing");
  }
  std::array<char, kRequestBytes> request{};
  const ssize_t count = ::read(device_fd, request.data(), request.size());
  if (count < 0) {
    return Failed("read the first request", ErrnoStatus(errno, "read '/dev/fuse'"));
  }
  fuse_in_header header{};
  fuse_init_in init{};
  std::memcpy(&header, request.data(), sizeof(header));
  if (static_cast<size_t>(count) < sizeof(header) || header.opcode != FUSE_INIT) {
    return MakeStatus(StatusCode::kFailedPrecondition, "the first request is none of FUSE_INIT");
  }
  // An older kernel's is shorter: what it has not said stays zero.
  std::memcpy(&init, request.data() + sizeof(header),
              std::min(sizeof(init), static_cast<size_t>(count) - sizeof(header)));
  FuseOffer offer{.major = init.major, .minor = init.minor, .features = {}};
  const bool is_extended = (init.flags & FUSE_INIT_EXT) != 0;
  const uint64_t flags = init.flags | (is_extended ? uint64_t{init.flags2} << 32 : 0);
  for (const auto& [bit, name] : kFeatures) {
    if ((flags >> bit & 1) != 0) {
      offer.features.emplace_back(name);
    }
  }
  return offer;
}

}  // namespace

StatusOr<FuseOffer> ProbeFuse(const std::string& directory) {
  StatusOr<UniqueFd> device = OpenFile("/dev/fuse", O_RDWR);
  if (!device.ok()) {
    return Failed("use FUSE", device.status());
  }
  STRATA_ASSIGN_OR_RETURN(const ProbeDirectory probe, ProbeDirectory::Create(directory));
  STRATA_RETURN_IF_ERROR(MakeDirAt(probe.fd(), kProbeMountPoint, 0700));
  const Mount mount{.type = "fuse",
                    .source = "strata-probe",
                    .options = {"fd=" + std::to_string(device->get()), "rootmode=40000",
                                "user_id=" + std::to_string(::geteuid()),
                                "group_id=" + std::to_string(::getegid())}};
  const StatusOr<ScopedMount> mounted =
      ScopedMount::Mount({&mount, 1}, probe.Join(kProbeMountPoint));
  if (!mounted.ok()) {
    return Failed("mount FUSE", mounted.status());
  }
  StatusOr<FuseOffer> offer = ReadOffer(device->get());
  // Ends the connection first: nobody then waits for us, the unmount least of all.
  device->Reset();
  return offer;
}

}  // namespace strata
