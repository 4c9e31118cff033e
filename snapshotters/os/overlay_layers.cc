// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/overlay_layers.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "snapshotters/base/fault.h"
#include "snapshotters/os/disk_usage.h"

namespace strata {
namespace {

// Indexes of Shapes().
constexpr size_t kWritableShape = 0;
constexpr size_t kReadOnlyShape = 1;

}  // namespace

std::vector<SpareDirectories::Shape> OverlayLayers::Shapes() {
  const SpareDirectories::Folder files = {.name = "fs", .mode = 0755};
  const SpareDirectories::Folder work = {.name = "work", .mode = 0711};
  return {{.mode = 0700, .folders = {files, work}}, {.mode = 0700, .folders = {files}}};
}

StatusOr<SnapshotId> OverlayLayers::Take(Kind kind) {
  return directories_.Take(kind == Kind::kActive ? kWritableShape : kReadOnlyShape);
}

std::string OverlayLayers::FilesOf(SnapshotId id) const {
  return directories_.PathOf(id) + "/fs";
}

StatusOr<HostOwner> OverlayLayers::OwnerOf(SnapshotId id) const {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd files, directories_.Open(id, "fs"));
  struct stat found {};
  if (::fstat(files.get(), &found) != 0) {
    return ErrnoStatus(errno, "stat '" + FilesOf(id) + "'");
  }
  return HostOwner{.uid = found.st_uid, .gid = found.st_gid};
}

Status OverlayLayers::SetOwner(SnapshotId id, const HostOwner& owner) {
  const uid_t own_uid = ::geteuid();
  const gid_t own_gid = ::getegid();
  if (owner.uid == own_uid && owner.gid == own_gid) {
    return OkStatus();
  }
  STRATA_FAULT_POINT("create.owner");
  STRATA_ASSIGN_OR_RETURN(const UniqueFd files, directories_.Open(id, "fs"));
  // The directory itself is durable already; its new owner has to be too.
  if (::fchown(files.get(), owner.uid, owner.gid) != 0 || ::fsync(files.get()) != 0) {
    return ErrnoStatus(errno, "change the owner of '" + FilesOf(id) + "'");
  }
  return OkStatus();
}

StatusOr<Usage> OverlayLayers::Measure(CallContext& call, SnapshotId id) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd files, directories_.Open(id, "fs"));
  return DiskUsage(call, files.get());
}

std::vector<Mount> OverlayLayers::MountsOf(SnapshotId id, Kind kind,
                                           const std::vector<std::string>& lower) const {
  const bool writable = kind == Kind::kActive;
  const auto bind = [writable](std::string source) {
    return Mount{.type = "bind",
                 .source = std::move(source),
                 .target = "",
                 .options = {writable ? "rw" : "ro", "rbind"}};
  };
  if (lower.empty()) {
    return {bind(FilesOf(id))};
  }
  if (!writable && lower.size() == 1) {
    return {bind(lower.front())};
  }
  std::vector<std::string> options;
  if (writable) {
    options.push_back("workdir=" + directories_.PathOf(id) + "/work");
    options.push_back("upperdir=" + FilesOf(id));
  }
  std::string all = "lowerdir=";
  for (size_t i = 0; i < lower.size(); ++i) {
    all += (i == 0 ? "" : ":") + lower[i];
  }
  options.push_back(std::move(all));
  options.insert(options.end(), mount_options_.begin(), mount_options_.end());
  return {{.type = "overlay", .source = "overlay", .target = "", .options = std::move(options)}};
}

}  // namespace strata
