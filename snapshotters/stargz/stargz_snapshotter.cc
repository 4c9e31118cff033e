// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/stargz/stargz_snapshotter.h"

#include <optional>
#include <utility>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/log.h"
#include "snapshotters/core/lmdb_meta_store.h"
#include "snapshotters/core/snapshot_tree.h"
#include "snapshotters/lazy/fallback_reason.h"
#include "snapshotters/lazy/toc_pin.h"
#include "snapshotters/os/id_mapping.h"
#include "snapshotters/os/overlay_options.h"

namespace strata {
namespace {

constexpr std::string_view kKind = "stargz";

// Index of the shape of a snapshot that is a lazy layer: an empty folder, behind those of overlay.
size_t LinkShape() {
  return OverlayLayers::Shapes().size();
}

std::vector<SpareDirectories::Shape> Shapes() {
  std::vector<SpareDirectories::Shape> shapes = OverlayLayers::Shapes();
  shapes.push_back({.mode = 0700});
  return shapes;
}

// The field by which scripts and dashboards for stargz-snapshotter know the event.
constexpr std::string_view kPreparedField = "remote-snapshot-prepared";

void LogFallback(std::string_view key, const SourceLabels& sources, std::string_view reason,
                 std::string_view detail, LogLevel level) {
  const LayerRequest* place = sources.places.empty() ? nullptr : &sources.places.front();
  Log(level, "a layer is not lazy: the client will fetch and unpack it",
      {{kPreparedField, "false"},
       {"reason", std::string(reason)},
       {"detail", std::string(detail)},
       {"key", std::string(key)},
       {"target", sources.target},
       {"image", place == nullptr ? "" : place->reference},
       {"digest", place == nullptr ? "" : place->digest}});
}

void LogFallback(std::string_view key, const SourceLabels& sources, const Status& status) {
  const FallbackReason reason = ReasonOf(status);
  LogFallback(key, sources, FallbackReasonName(reason), StatusMessage(status),
              reason == FallbackReason::kNotLazy ? LogLevel::kInfo : LogLevel::kWarn);
}

// containerd looks for these words in nothing, but they are what stargz-snapshotter says.
Status TargetIsThere(std::string_view target) {
  return MakeStatus(StatusCode::kAlreadyExists, "target snapshot " + ShowName(target));
}

}  // namespace

StatusOr<std::unique_ptr<StargzSnapshotter>> StargzSnapshotter::Create(
    const StargzOptions& options) {
  STRATA_RETURN_IF_ERROR(CheckOverlayOptions(options.overlay.mount_options));
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<StateRoot> root,
                          StateRoot::Open({.path = options.root,
                                           .kind = std::string(kKind),
                                           .allow_volatile = options.allow_volatile,
                                           .anchor_dir = options.anchor_dir,
                                           .kind_folders = options.layer_folders}));
  OverlaySettings wanted = options.overlay;
  wanted.remap_ids = RemapIds::kOff;
  STRATA_ASSIGN_OR_RETURN(OverlaySettings settings, ProbeOverlaySettings(*root, std::move(wanted)));
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<MetaStore> store,
                          OpenLmdbMetaStore({.directory = root->metadata_path(),
                                             .kind = std::string(kKind),
                                             .uuid = root->uuid(),
                                             .create = root->fresh(),
                                             .lock_directory = root->lock_directory()}));
  STRATA_RETURN_IF_ERROR(root->MarkComplete());
  auto links = std::make_unique<LayerLinks>(root->snapshots_fd());
  STRATA_ASSIGN_OR_RETURN(
      std::unique_ptr<LayerStack> stack,
      options.open_layers({.path = root->path(),
                           .user_xattr = HasMountOption(settings.mount_options, "userxattr"),
                           .referenced = [all = links.get()] { return all->All(); }}));
  return std::unique_ptr<StargzSnapshotter>(
      new StargzSnapshotter(std::move(root), std::move(store), std::move(links), std::move(stack),
                            options, std::move(settings)));
}

StargzSnapshotter::StargzSnapshotter(std::unique_ptr<StateRoot> root,
                                     std::unique_ptr<MetaStore> store,
                                     std::unique_ptr<LayerLinks> links,
                                     std::unique_ptr<LayerStack> stack,
                                     const StargzOptions& options, OverlaySettings settings)
    : TreeSnapshotter(*store, *options.clock),
      root_(std::move(root)),
      store_(std::move(store)),
      links_(std::move(links)),
      stack_(std::move(stack)),
      directories_(*root_, *store_, Shapes(), options.reaper),
      layers_(directories_, std::move(settings)),
      sync_at_commit_(options.sync_at_commit) {}

StatusOr<std::vector<Mount>> StargzSnapshotter::Prepare(CallContext& call, std::string_view key,
                                                        std::string_view parent,
                                                        const Labels& labels) {
  const std::optional<SourceLabels> sources = ParseSourceLabels(labels);
  if (sources.has_value()) {
    STRATA_RETURN_IF_ERROR(ValidateName("key", key));
    STRATA_RETURN_IF_ERROR(ValidateLabels(labels));
    if (!parent.empty()) {
      STRATA_RETURN_IF_ERROR(ValidateName("parent", parent));
    }
    STRATA_ASSIGN_OR_RETURN(
        const bool there,
        PrepareRemote(call, {.key = key, .parent = parent, .labels = labels, .sources = *sources}));
    if (there) {
      return TargetIsThere(sources->target);
    }
  }
  return TreeSnapshotter::Prepare(call, key, parent, labels);
}

StatusOr<bool> StargzSnapshotter::PrepareRemote(CallContext& call, const Wanted& wanted) {
  const SourceLabels& sources = wanted.sources;
  STRATA_RETURN_IF_ERROR(call.Check());
  // What an ordinary Prepare refuses is refused before anybody is asked for anything.
  if (!wanted.parent.empty()) {
    STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> parent, Look(wanted.parent));
    STRATA_RETURN_IF_ERROR(tree::CheckParent(wanted.parent, parent));
  }
  STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> taken, Look(wanted.key));
  if (taken.has_value()) {
    return tree::NameTaken(wanted.key);
  }
  if (sources.places.empty()) {
    LogFallback(wanted.key, sources, "no-labels", sources.problem, LogLevel::kInfo);
    return false;
  }
  if (const Status status = ValidateName("target", sources.target); !status.ok()) {
    LogFallback(wanted.key, sources, "no-labels", StatusMessage(status), LogLevel::kWarn);
    return false;
  }
  STRATA_ASSIGN_OR_RETURN(const bool there, IsThere(wanted, sources.target));
  if (there) {
    return true;
  }

  const StatusOr<std::shared_ptr<LayerStore::Use>> use = GetLayer(call, wanted);
  STRATA_RETURN_IF_ERROR(call.Check());
  if (!use.ok()) {
    LogFallback(wanted.key, sources, use.status());
    return false;
  }
  const uint64_t layer = (*use)->number();
  const StatusOr<SnapshotId> id = MakeFolder(layer);
  if (!id.ok()) {
    LogFallback(wanted.key, sources, WithReason(id.status(), FallbackReason::kDisk));
    return false;
  }
  // The layer is in use until it is recorded, so that it is not evicted before.
  if (const Status status = Record(call, wanted, *id, layer); !status.ok()) {
    DiscardDirectories(*id);
    // Somebody else has recorded the same layer meanwhile; what he recorded will do.
    if (status.code() == StatusCode::kAlreadyExists) {
      STRATA_ASSIGN_OR_RETURN(const bool now, IsThere(wanted, sources.target));
      if (now) {
        return true;
      }
    }
    return status;
  }
  LogInfo("a layer is lazy", {{kPreparedField, "true"},
                              {"key", std::string(wanted.key)},
                              {"target", sources.target},
                              {"layer", std::to_string(layer)}});
  return true;
}

StatusOr<std::shared_ptr<LayerStore::Use>> StargzSnapshotter::GetLayer(CallContext& call,
                                                                       const Wanted& wanted) {
  const SourceLabels& sources = wanted.sources;
  // An image whose layer has no annotation is most likely an ordinary one, whose other layers are
  // not worth the bytes.
  const auto pin = ParseTocPin(sources.places.front().annotations);
  if (pin.ok() && pin->pinned() && !sources.neighbours.empty() &&
      announced_.IsFirst(sources.places.front(), sources.neighbours)) {
    lazy().Announce(sources.neighbours);
  }
  Status first;
  for (const LayerRequest& place : sources.places) {
    STRATA_RETURN_IF_ERROR(call.Check());
    StatusOr<std::shared_ptr<LayerStore::Use>> use = lazy().Get(place);
    if (use.ok()) {
      return use;
    }
    first.Update(use.status());
    // One that has taken all the time there was leaves none for the next.
    if (ReasonOf(use.status()) == FallbackReason::kTimeout) {
      break;
    }
  }
  return first;
}

StatusOr<bool> StargzSnapshotter::IsThere(const Wanted& wanted, std::string_view name) {
  STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> record, Look(name));
  if (!record.has_value() || record->info.kind != Kind::kCommitted ||
      record->info.parent != wanted.parent) {
    return false;
  }
  // containerd adopts a snapshot by this label (snapshots-contract 6.3): without it, an answer of
  // AlreadyExists would end the pull.
  const auto label = record->info.labels.find(kTargetLabel);
  return label != record->info.labels.end() && label->second == wanted.sources.target;
}

StatusOr<SnapshotId> StargzSnapshotter::MakeFolder(uint64_t layer) {
  STRATA_ASSIGN_OR_RETURN(const SnapshotId id, directories_.Take(LinkShape()));
  if (const Status status = links_->Make(id, layer); !status.ok()) {
    DiscardDirectories(id);
    return status;
  }
  return id;
}

Status StargzSnapshotter::Record(CallContext& call, const Wanted& wanted, SnapshotId id,
                                 uint64_t layer) {
  STRATA_FAULT_POINT("adopt.linked");
  Labels labels = wanted.labels;
  labels.insert_or_assign(std::string(kRemoteLabel), std::string(kRemoteValue));
  NewCommitted committed = {.name = wanted.sources.target,
                            .parent = wanted.parent,
                            .labels = labels,
                            .usage = UsageOf(layer, {})};
  Status status = RecordCommitted(call, id, committed);
  if (status.code() != StatusCode::kAlreadyExists) {
    return status;
  }
  STRATA_ASSIGN_OR_RETURN(const bool there, IsThere(wanted, wanted.sources.target));
  if (there) {
    return status;
  }
  // The name is free to choose, and the key is the client's own: another namespace may have the
  // same layer on a parent of its own.
  committed.name = wanted.key;
  return RecordCommitted(call, id, committed);
}

StatusOr<SnapshotId> StargzSnapshotter::CreateDirectories(CallContext& /*call*/,
                                                          const NewSnapshot& wanted) {
  STRATA_ASSIGN_OR_RETURN(const SnapshotId id, layers_.Take(wanted.kind));
  if (const Status status = SetOwner(id, wanted); !status.ok()) {
    directories_.Discard(id);
    return status;
  }
  return id;
}

Status StargzSnapshotter::SetOwner(SnapshotId id, const NewSnapshot& wanted) {
  STRATA_ASSIGN_OR_RETURN(std::optional<HostOwner> owner, MappedRoot(wanted.labels));
  if (!owner.has_value() && !wanted.chain.empty()) {
    STRATA_ASSIGN_OR_RETURN(owner, OwnerOf(wanted.chain.front()));
  }
  return owner.has_value() ? layers_.SetOwner(id, *owner) : OkStatus();
}

// Of the root directory of a layer. That of a lazy one is in its image, so that no mount is asked,
// which might make us wait for ourselves.
StatusOr<HostOwner> StargzSnapshotter::OwnerOf(SnapshotId id) {
  STRATA_ASSIGN_OR_RETURN(const std::optional<uint64_t> layer, links_->Find(id));
  if (!layer.has_value()) {
    return layers_.OwnerOf(id);
  }
  STRATA_ASSIGN_OR_RETURN(const std::shared_ptr<LayerStore::Use> use, lazy().Find(*layer));
  const ErofsReader& image = use->layer().image().tree();
  STRATA_ASSIGN_OR_RETURN(const ErofsStat stat, image.Stat(image.root()));
  return HostOwner{.uid = stat.uid, .gid = stat.gid};
}

void StargzSnapshotter::DiscardDirectories(SnapshotId id) {
  links_->Forget(id);
  directories_.Discard(id);
}

StatusOr<Usage> StargzSnapshotter::MeasureUsage(CallContext& call, SnapshotId id) {
  return layers_.Measure(call, id);
}

Usage StargzSnapshotter::UsageOf(uint64_t layer, const Usage& otherwise) {
  const StatusOr<LayerStore::Size> size = lazy().SizeOf(layer);
  if (!size.ok()) {
    return otherwise;
  }
  return {.size = static_cast<int64_t>(size->bytes), .inodes = static_cast<int64_t>(size->inodes)};
}

StatusOr<Usage> StargzSnapshotter::CommittedUsage(const SnapshotRecord& record) {
  STRATA_ASSIGN_OR_RETURN(const std::optional<uint64_t> layer, links_->Find(record.id));
  return layer.has_value() ? UsageOf(*layer, record.usage) : record.usage;
}

StatusOr<std::vector<Mount>> StargzSnapshotter::BuildMounts(const SnapshotRecord& record) {
  std::vector<std::string> lower;
  lower.reserve(record.chain.size());
  for (const SnapshotId id : record.chain) {
    STRATA_ASSIGN_OR_RETURN(const std::optional<uint64_t> layer, links_->Find(id));
    if (!layer.has_value()) {
      lower.push_back(layers_.FilesOf(id));
      continue;
    }
    // An empty directory would stand where a layer is missing.
    if (const Status status = lazy().Find(*layer).status(); !status.ok()) {
      return MakeStatus(
          status.code() == StatusCode::kNotFound ? StatusCode::kDataLoss : status.code(),
          "lazy layer " + std::to_string(*layer) + " of snapshot " + ShowName(record.info.name) +
              ": " + std::string(StatusMessage(status)));
    }
    lower.push_back(lazy().PathOf(*layer));
  }
  return layers_.MountsOf(record, lower);
}

void StargzSnapshotter::AddToInfo(SnapshotInfo& info, SnapshotId id) {
  if (!layers_.adds_to_infos()) {
    return;
  }
  // A lazy layer has no files of its own. What cannot be told is left out.
  const StatusOr<std::optional<uint64_t>> layer = links_->Find(id);
  if (layer.ok() && !layer->has_value()) {
    layers_.AddTo(info, id);
  }
}

Status StargzSnapshotter::StartReclaim() {
  directories_.Reclaim();
  lazy().Reclaim(/*all=*/false);
  return OkStatus();
}

}  // namespace strata
