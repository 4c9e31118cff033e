// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/fuse_overlayfs/fuse_overlayfs_snapshotter.h"

#include <optional>
#include <utility>

#include "snapshotters/core/lmdb_meta_store.h"
#include "snapshotters/os/fuse_overlay_probe.h"
#include "snapshotters/os/id_mapping.h"
#include "snapshotters/os/overlay_options.h"
#include "snapshotters/os/probe_directory.h"

namespace strata {
namespace {

constexpr std::string_view kKind = "fuse-overlayfs";

// Ids are mapped by options of fuse-overlayfs, not of the kernel's mounts.
OverlaySettings KernelSettings(OverlaySettings settings) {
  settings.remap_ids = RemapIds::kOff;
  return settings;
}

}  // namespace

StatusOr<std::unique_ptr<FuseOverlayfsSnapshotter>> FuseOverlayfsSnapshotter::Create(
    const FuseOverlayfsOptions& options) {
  STRATA_RETURN_IF_ERROR(CheckOverlayOptions(options.overlay.mount_options));
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<StateRoot> root,
                          StateRoot::Open({.path = options.root,
                                           .kind = std::string(kKind),
                                           .allow_volatile = options.allow_volatile,
                                           .anchor_dir = options.anchor_dir}));
  STRATA_RETURN_IF_ERROR(ForgiveFullDisk(
      Annotate(ProbeFuseOverlay(root->path()), "root '" + root->path() + "'"), root->fresh()));
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<MetaStore> store,
                          OpenLmdbMetaStore({.directory = root->metadata_path(),
                                             .kind = std::string(kKind),
                                             .uuid = root->uuid(),
                                             .create = root->fresh(),
                                             .lock_directory = root->lock_directory()}));
  STRATA_RETURN_IF_ERROR(root->MarkComplete());
  return std::unique_ptr<FuseOverlayfsSnapshotter>(
      new FuseOverlayfsSnapshotter(std::move(root), std::move(store), options));
}

FuseOverlayfsSnapshotter::FuseOverlayfsSnapshotter(std::unique_ptr<StateRoot> root,
                                                   std::unique_ptr<MetaStore> store,
                                                   const FuseOverlayfsOptions& options)
    : TreeSnapshotter(*store, *options.clock),
      root_(std::move(root)),
      store_(std::move(store)),
      directories_(*root_, *store_, OverlayLayers::Shapes(), options.reaper),
      layers_(directories_, KernelSettings(options.overlay)),
      remap_ids_(options.overlay.remap_ids != RemapIds::kOff),
      sync_at_commit_(options.sync_at_commit) {}

StatusOr<SnapshotId> FuseOverlayfsSnapshotter::CreateDirectories(CallContext& /*call*/,
                                                                 const NewSnapshot& wanted) {
  STRATA_ASSIGN_OR_RETURN(const SnapshotId id, layers_.Take(wanted.kind));
  if (const Status status = SetOwner(id, wanted); !status.ok()) {
    directories_.Discard(id);
    return status;
  }
  return id;
}

Status FuseOverlayfsSnapshotter::SetOwner(SnapshotId id, const NewSnapshot& wanted) {
  STRATA_ASSIGN_OR_RETURN(std::optional<HostOwner> owner, MappedRoot(wanted.labels));
  if (!wanted.chain.empty() && (remap_ids_ || !owner.has_value())) {
    // Where the mount maps what is on disk, that is the container's ids: an owner that is mapped
    // already would be mapped again.
    STRATA_ASSIGN_OR_RETURN(owner, layers_.OwnerOf(wanted.chain.front()));
  }
  return owner.has_value() ? layers_.SetOwner(id, *owner) : OkStatus();
}

void FuseOverlayfsSnapshotter::DiscardDirectories(SnapshotId id) {
  directories_.Discard(id);
}

StatusOr<Usage> FuseOverlayfsSnapshotter::MeasureUsage(CallContext& call, SnapshotId id) {
  return layers_.Measure(call, id);
}

StatusOr<std::vector<Mount>> FuseOverlayfsSnapshotter::BuildMounts(const SnapshotRecord& record) {
  std::vector<std::string> lower;
  lower.reserve(record.chain.size());
  for (const SnapshotId id : record.chain) {
    lower.push_back(layers_.FilesOf(id));
  }
  STRATA_ASSIGN_OR_RETURN(std::vector<Mount> mounts, layers_.MountsOf(record, lower));
  for (Mount& mount : mounts) {
    if (mount.type != "overlay") {
      continue;
    }
    mount.type = kFuseOverlayType;
    if (remap_ids_) {
      // Labels can be changed after they were checked.
      STRATA_ASSIGN_OR_RETURN(std::vector<std::string> mapping,
                              FuseMappingOptions(record.info.labels));
      mount.options.insert(mount.options.end(), mapping.begin(), mapping.end());
    }
  }
  return mounts;
}

Status FuseOverlayfsSnapshotter::StartReclaim() {
  directories_.Reclaim();
  return OkStatus();
}

}  // namespace strata
