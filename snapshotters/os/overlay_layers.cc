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

Status OverlayLayers::Sync(const CallContext& call, SnapshotId id, SyncAtCommit how) {
  if (how == SyncAtCommit::kNone) {
    return OkStatus();
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd files, directories_.Open(id, "fs"));
  return SyncTree(call, files.get(), how);
}

StatusOr<std::vector<Mount>> OverlayLayers::MountsOf(const SnapshotRecord& record,
                                                     const std::vector<std::string>& lower) const {
  const SnapshotInfo& info = record.info;
  const bool writable = info.kind == Kind::kActive;
  std::vector<std::string> options;
  if (settings_.remap_ids == RemapIds::kOn) {
    STRATA_ASSIGN_OR_RETURN(options, MappingOptions(info.labels));
  }
  if (lower.empty() || (!writable && lower.size() == 1)) {
    options.insert(options.end(), {writable ? "rw" : "ro", "rbind"});
    return std::vector<Mount>{{.type = "bind",
                               .source = lower.empty() ? FilesOf(record.id) : lower.front(),
                               .target = "",
                               .options = std::move(options)}};
  }
  if (writable) {
    options.push_back("workdir=" + directories_.PathOf(record.id) + "/work");
    options.push_back("upperdir=" + FilesOf(record.id));
  }
  std::string all = "lowerdir=";
  for (size_t i = 0; i < lower.size(); ++i) {
    all += (i == 0 ? "" : ":") + lower[i];
  }
  options.push_back(std::move(all));
  if (writable && settings_.volatile_containers && !IsUnpack(info.name, info.labels)) {
    options.emplace_back("volatile");
  }
  options.insert(options.end(), settings_.mount_options.begin(), settings_.mount_options.end());
  return std::vector<Mount>{
      {.type = "overlay", .source = "overlay", .target = "", .options = std::move(options)}};
}

void OverlayLayers::AddTo(SnapshotInfo& info, SnapshotId id) const {
  if (settings_.upperdir_label) {
    info.labels.insert_or_assign(std::string(kUpperdirLabel), FilesOf(id));
  }
}

}  // namespace strata
