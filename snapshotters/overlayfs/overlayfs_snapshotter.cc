// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/overlayfs/overlayfs_snapshotter.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/log.h"
#include "snapshotters/core/lmdb_meta_store.h"
#include "snapshotters/os/disk_usage.h"
#include "snapshotters/os/id_mapping.h"
#include "snapshotters/os/overlay_probe.h"

namespace strata {
namespace {

constexpr std::string_view kKind = "overlayfs";

// Indexes of the shapes given to SnapshotDirectories.
constexpr size_t kWritableShape = 0;
constexpr size_t kReadOnlyShape = 1;

std::vector<SpareDirectories::Shape> Shapes() {
  const SpareDirectories::Folder files = {.name = "fs", .mode = 0755};
  const SpareDirectories::Folder work = {.name = "work", .mode = 0711};
  return {{.mode = 0700, .folders = {files, work}}, {.mode = 0700, .folders = {files}}};
}

// Whether `options` has NAME or NAME=...; the last one wins in the kernel, so ours must not follow.
bool HasOption(const std::vector<std::string>& options, std::string_view name) {
  for (const std::string& option : options) {
    if (option == name || (option.starts_with(name) && option[name.size()] == '=')) {
      return true;
    }
  }
  return false;
}

Status CheckMountOptions(const std::vector<std::string>& options) {
  for (const std::string& option : options) {
    for (const std::string_view reserved : {"lowerdir", "upperdir", "workdir", "ro"}) {
      if (HasOption({option}, reserved)) {
        return MakeStatus(StatusCode::kInvalidArgument,
                          "mount option '" + option + "': the snapshotter sets it itself");
      }
    }
    if (option.empty() || option.find(',') != std::string::npos) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        "mount option '" + option + "': expected one option without ','");
    }
  }
  return OkStatus();
}

// What is appended to every overlay mount: the configured options, then what this kernel needs.
StatusOr<std::vector<std::string>> EffectiveMountOptions(const StateRoot& root,
                                                         std::vector<std::string> options) {
  if (!HasOption(options, "userxattr")) {
    STRATA_ASSIGN_OR_RETURN(const bool needed, NeedsUserXattr(root.path()));
    if (needed) {
      options.emplace_back("userxattr");
    }
  }
  // An index would tie an upper directory to the lower ones of its first mount; layers move on.
  if (!HasOption(options, "index") && OverlayHasIndexOption()) {
    options.emplace_back("index=off");
  }
  return options;
}

Status Probe(const std::string& root) {
  STRATA_ASSIGN_OR_RETURN(const bool d_type, SupportsDType(root));
  if (!d_type) {
    return MakeStatus(
        StatusCode::kFailedPrecondition,
        "root '" + root +
            "' is on a file system whose directories do not tell file types (d_type), "
            "which overlay needs: reformat it with ftype=1 (xfs) or filetype (ext4)");
  }
  if (const Status status = ProbeOverlay(root); !status.ok()) {
    if (status.code() == StatusCode::kResourceExhausted) {
      return Annotate(status, "root '" + root + "'");
    }
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "root '" + root +
                          "' cannot hold overlay layers: " + std::string(StatusMessage(status)) +
                          "; choose ext4, xfs or btrfs, or use strata-native");
  }
  return OkStatus();
}

}  // namespace

StatusOr<std::unique_ptr<OverlayfsSnapshotter>> OverlayfsSnapshotter::Create(
    const OverlayfsOptions& options) {
  STRATA_RETURN_IF_ERROR(CheckMountOptions(options.mount_options));
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<StateRoot> root,
                          StateRoot::Open({.path = options.root,
                                           .kind = std::string(kKind),
                                           .allow_volatile = options.allow_volatile,
                                           .anchor_dir = options.anchor_dir}));
  if (const Status status = Probe(root->path()); !status.ok()) {
    // Probes need room. A root that has served before may be full, and must start to be emptied.
    if (root->fresh() || status.code() != StatusCode::kResourceExhausted) {
      return status;
    }
    LogWarn("the root's disk is full, so overlay mounts there were not tried",
            {{"error", std::string(StatusMessage(status))}});
  }
  STRATA_ASSIGN_OR_RETURN(std::vector<std::string> mount_options,
                          EffectiveMountOptions(*root, options.mount_options));
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<MetaStore> store,
                          OpenLmdbMetaStore({.directory = root->metadata_path(),
                                             .kind = std::string(kKind),
                                             .uuid = root->uuid(),
                                             .create = root->fresh(),
                                             .lock_directory = root->lock_directory()}));
  STRATA_RETURN_IF_ERROR(root->MarkComplete());
  return std::unique_ptr<OverlayfsSnapshotter>(new OverlayfsSnapshotter(
      std::move(root), std::move(store), options, std::move(mount_options)));
}

OverlayfsSnapshotter::OverlayfsSnapshotter(std::unique_ptr<StateRoot> root,
                                           std::unique_ptr<MetaStore> store,
                                           const OverlayfsOptions& options,
                                           std::vector<std::string> mount_options)
    : TreeSnapshotter(*store, *options.clock),
      root_(std::move(root)),
      store_(std::move(store)),
      mount_options_(std::move(mount_options)),
      directories_(*root_, *store_, Shapes(), options.reaper) {}

StatusOr<SnapshotId> OverlayfsSnapshotter::CreateDirectories(CallContext& /*call*/,
                                                             const NewSnapshot& wanted) {
  STRATA_ASSIGN_OR_RETURN(
      const SnapshotId id,
      directories_.Take(wanted.kind == Kind::kActive ? kWritableShape : kReadOnlyShape));
  if (const Status status = SetOwner(id, wanted); !status.ok()) {
    directories_.Discard(id);
    return status;
  }
  return id;
}

Status OverlayfsSnapshotter::SetOwner(SnapshotId id, const NewSnapshot& wanted) {
  STRATA_ASSIGN_OR_RETURN(std::optional<HostOwner> owner, MappedRoot(wanted.labels));
  if (!owner.has_value() && !wanted.chain.empty()) {
    const std::string parent = std::to_string(wanted.chain.front()) + "/fs";
    struct stat found {};
    if (::fstatat(root_->snapshots_fd(), parent.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
      return ErrnoStatus(errno, "stat '" + directories_.PathOf(wanted.chain.front()) + "/fs'");
    }
    owner = HostOwner{.uid = found.st_uid, .gid = found.st_gid};
  }
  const uid_t own_uid = ::geteuid();
  const gid_t own_gid = ::getegid();
  if (!owner.has_value() || (owner->uid == own_uid && owner->gid == own_gid)) {
    return OkStatus();
  }
  STRATA_FAULT_POINT("create.owner");
  STRATA_ASSIGN_OR_RETURN(const UniqueFd files, directories_.Open(id, "fs"));
  // The directory itself is durable already; its new owner has to be too.
  if (::fchown(files.get(), owner->uid, owner->gid) != 0 || ::fsync(files.get()) != 0) {
    return ErrnoStatus(errno, "change the owner of '" + directories_.PathOf(id) + "/fs'");
  }
  return OkStatus();
}

void OverlayfsSnapshotter::DiscardDirectories(SnapshotId id) {
  directories_.Discard(id);
}

StatusOr<Usage> OverlayfsSnapshotter::MeasureUsage(CallContext& call, SnapshotId id) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd files, directories_.Open(id, "fs"));
  return DiskUsage(call, files.get());
}

StatusOr<std::vector<Mount>> OverlayfsSnapshotter::BuildMounts(const SnapshotRecord& record) {
  const auto files_of = [this](SnapshotId id) { return directories_.PathOf(id) + "/fs"; };
  const bool writable = record.info.kind == Kind::kActive;
  const auto bind = [writable](std::string source) {
    return Mount{.type = "bind",
                 .source = std::move(source),
                 .target = "",
                 .options = {writable ? "rw" : "ro", "rbind"}};
  };
  if (record.chain.empty()) {
    return std::vector<Mount>{bind(files_of(record.id))};
  }
  if (!writable && record.chain.size() == 1) {
    return std::vector<Mount>{bind(files_of(record.chain.front()))};
  }
  std::vector<std::string> options;
  if (writable) {
    options.push_back("workdir=" + directories_.PathOf(record.id) + "/work");
    options.push_back("upperdir=" + files_of(record.id));
  }
  std::string lower = "lowerdir=";
  for (const SnapshotId id : record.chain) {
    lower += (id == record.chain.front() ? "" : ":") + files_of(id);
  }
  options.push_back(std::move(lower));
  options.insert(options.end(), mount_options_.begin(), mount_options_.end());
  return std::vector<Mount>{
      {.type = "overlay", .source = "overlay", .target = "", .options = std::move(options)}};
}

Status OverlayfsSnapshotter::StartReclaim() {
  directories_.Reclaim();
  return OkStatus();
}

}  // namespace strata
