// SPDX-License-Identifier: Apache-2.0
//
// The stargz snapshotter: an overlay snapshotter some of whose layers are lazy. A Prepare whose
// labels name a layer that can be had lazily is answered by a committed snapshot of that layer and
// AlreadyExists, so that the client neither fetches nor unpacks it; every other one is an ordinary
// one. Safe from any thread.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "snapshotters/base/clock.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/core/tree_snapshotter.h"
#include "snapshotters/lazy/layer_store.h"
#include "snapshotters/os/overlay_layers.h"
#include "snapshotters/os/snapshot_directories.h"
#include "snapshotters/os/state_root.h"
#include "snapshotters/stargz/announced_layers.h"
#include "snapshotters/stargz/layer_links.h"
#include "snapshotters/stargz/source_labels.h"

namespace strata {

// A layer store and all that it stands on.
class LayerStack {
 public:
  virtual ~LayerStack() = default;
  virtual LayerStore& layers() = 0;
};

// What a layer store has to know of the root that it is opened in, which is ours and locked.
struct LayerRoot {
  std::string path;
  bool user_xattr = false;  // how overlay mounts of this root take opaque directories
  std::function<StatusOr<std::set<uint64_t>>()> referenced;  // see LayerStoreOptions
};

struct StargzOptions {
  std::string root;             // absolute
  bool allow_volatile = false;  // a root on tmpfs will do
  std::string anchor_dir;       // see StateRootOptions
  // Ids are not mapped, whatever remap_ids says: a client that maps those of a folder in which all
  // layers are would not map the mounts in it, which lazy layers are, but hide them.
  OverlaySettings overlay;
  SyncAtCommit sync_at_commit = SyncAtCommit::kNone;
  Clock* clock = &Clock::System();  // must outlive the snapshotter
  Reaper::Options reaper;
  // Folders that the layers have in the root.
  std::vector<std::string> layer_folders;
  // Called once, by Create.
  std::function<StatusOr<std::unique_ptr<LayerStack>>(const LayerRoot&)> open_layers;
};

class StargzSnapshotter final : public TreeSnapshotter {
 public:
  // Opens the root as OverlayfsSnapshotter does, with the same errors, and the layers in it.
  static StatusOr<std::unique_ptr<StargzSnapshotter>> Create(const StargzOptions& options);

  // See the top, and Snapshotter. AlreadyExists with the text "target snapshot ..." comes only
  // after the committed snapshot is durable. Whatever keeps a layer from being lazy is logged with
  // its reason and leads to an ordinary snapshot.
  StatusOr<std::vector<Mount>> Prepare(CallContext& call, std::string_view key,
                                       std::string_view parent, const Labels& labels) override;

  // What the sweep at the start found; waits for its end.
  const SnapshotDirectories::Swept& WaitSwept() { return directories_.WaitSwept(); }

 protected:
  StatusOr<SnapshotId> CreateDirectories(CallContext& call, const NewSnapshot& wanted) override;
  void DiscardDirectories(SnapshotId id) override;
  StatusOr<Usage> MeasureUsage(CallContext& call, SnapshotId id) override;
  // Of a lazy layer: what is on disk now, not what was there when it was committed.
  StatusOr<Usage> CommittedUsage(const SnapshotRecord& record) override;
  StatusOr<std::vector<Mount>> BuildMounts(const SnapshotRecord& record) override;
  void AddToInfo(SnapshotInfo& info, SnapshotId id) override;
  Status MakeDurable(CallContext& call, SnapshotId id) override {
    return layers_.Sync(call, id, sync_at_commit_);
  }
  Status StartReclaim() override;

 private:
  StargzSnapshotter(std::unique_ptr<StateRoot> root, std::unique_ptr<MetaStore> store,
                    std::unique_ptr<LayerLinks> links, std::unique_ptr<LayerStack> stack,
                    const StargzOptions& options, OverlaySettings settings);

  // A Prepare that may be answered by a committed snapshot.
  struct Wanted {
    std::string_view key;
    std::string_view parent;
    const Labels& labels;
    const SourceLabels& sources;
  };
  // Whether the target is committed now, under one name or another. An error ends the call.
  StatusOr<bool> PrepareRemote(CallContext& call, const Wanted& wanted);
  StatusOr<std::shared_ptr<LayerStore::Use>> GetLayer(CallContext& call, const Wanted& wanted);
  // Whether a committed snapshot is what a client that asked for the target will accept.
  StatusOr<bool> IsThere(const Wanted& wanted, std::string_view name);
  StatusOr<SnapshotId> MakeFolder(uint64_t layer);
  Status Record(CallContext& call, const Wanted& wanted, SnapshotId id, uint64_t layer);

  [[nodiscard]] Usage UsageOf(uint64_t layer, const Usage& otherwise);
  StatusOr<HostOwner> OwnerOf(SnapshotId id);
  Status SetOwner(SnapshotId id, const NewSnapshot& wanted);

  LayerStore& lazy() { return stack_->layers(); }

  // In the order of dependence: what is below uses what is above.
  const std::unique_ptr<StateRoot> root_;
  const std::unique_ptr<MetaStore> store_;
  const std::unique_ptr<LayerLinks> links_;
  const std::unique_ptr<LayerStack> stack_;
  SnapshotDirectories directories_;
  OverlayLayers layers_;
  const SyncAtCommit sync_at_commit_;
  AnnouncedLayers announced_;
};

}  // namespace strata
