// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/overlayfs/overlayfs_snapshotter.h"

#include <optional>
#include <utility>

#include "snapshotters/core/lmdb_meta_store.h"
#include "snapshotters/os/overlay_options.h"

namespace strata {
namespace {

constexpr std::string_view kKind = "overlayfs";

}  // namespace

StatusOr<std::unique_ptr<OverlayfsSnapshotter>> OverlayfsSnapshotter::Create(
    const OverlayfsOptions& options) {
  STRATA_RETURN_IF_ERROR(CheckOverlayOptions(options.overlay.mount_options));
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<StateRoot> root,
                          StateRoot::Open({.path = options.root,
                                           .kind = std::string(kKind),
                                           .allow_volatile = options.allow_volatile,
                                           .anchor_dir = options.anchor_dir}));
  STRATA_ASSIGN_OR_RETURN(OverlaySettings settings, ProbeOverlaySettings(*root, options.overlay));
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<MetaStore> store,
                          OpenLmdbMetaStore({.directory = root->metadata_path(),
                                             .kind = std::string(kKind),
                                             .uuid = root->uuid(),
                                             .create = root->fresh(),
                                             .lock_directory = root->lock_directory()}));
  STRATA_RETURN_IF_ERROR(root->MarkComplete());
  return std::unique_ptr<OverlayfsSnapshotter>(
      new OverlayfsSnapshotter(std::move(root), std::move(store), options, std::move(settings)));
}

OverlayfsSnapshotter::OverlayfsSnapshotter(std::unique_ptr<StateRoot> root,
                                           std::unique_ptr<MetaStore> store,
                                           const OverlayfsOptions& options,
                                           OverlaySettings settings)
    : TreeSnapshotter(*store, *options.clock),
      root_(std::move(root)),
      store_(std::move(store)),
      directories_(*root_, *store_, OverlayLayers::Shapes(), options.reaper),
      layers_(directories_, std::move(settings)),
      sync_at_commit_(options.sync_at_commit) {}

StatusOr<SnapshotId> OverlayfsSnapshotter::CreateDirectories(CallContext& /*call*/,
                                                             const NewSnapshot& wanted) {
  STRATA_ASSIGN_OR_RETURN(const SnapshotId id, layers_.Take(wanted.kind));
  if (const Status status = SetOwner(id, wanted); !status.ok()) {
    directories_.Discard(id);
    return status;
  }
  return id;
}

Status OverlayfsSnapshotter::SetOwner(SnapshotId id, const NewSnapshot& wanted) {
  STRATA_ASSIGN_OR_RETURN(std::optional<HostOwner> owner, MappedRoot(wanted.labels));
  if (!owner.has_value() && !wanted.chain.empty()) {
    STRATA_ASSIGN_OR_RETURN(owner, layers_.OwnerOf(wanted.chain.front()));
  }
  return owner.has_value() ? layers_.SetOwner(id, *owner) : OkStatus();
}

void OverlayfsSnapshotter::DiscardDirectories(SnapshotId id) {
  directories_.Discard(id);
}

StatusOr<Usage> OverlayfsSnapshotter::MeasureUsage(CallContext& call, SnapshotId id) {
  return layers_.Measure(call, id);
}

StatusOr<std::vector<Mount>> OverlayfsSnapshotter::BuildMounts(const SnapshotRecord& record) {
  std::vector<std::string> lower;
  lower.reserve(record.chain.size());
  for (const SnapshotId id : record.chain) {
    lower.push_back(layers_.FilesOf(id));
  }
  return layers_.MountsOf(record, lower);
}

Status OverlayfsSnapshotter::StartReclaim() {
  directories_.Reclaim();
  return OkStatus();
}

}  // namespace strata
