// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/native/native_snapshotter.h"

#include <utility>

#include "snapshotters/base/fault.h"
#include "snapshotters/core/lmdb_meta_store.h"
#include "snapshotters/os/disk_usage.h"
#include "snapshotters/os/tree_copy.h"

namespace strata {
namespace {

constexpr std::string_view kKind = "native";
constexpr size_t kOnlyShape = 0;

}  // namespace

StatusOr<std::unique_ptr<NativeSnapshotter>> NativeSnapshotter::Create(
    const NativeOptions& options) {
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<StateRoot> root,
                          StateRoot::Open({.path = options.root,
                                           .kind = std::string(kKind),
                                           .allow_volatile = options.allow_volatile,
                                           .anchor_dir = options.anchor_dir}));
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<MetaStore> store,
                          OpenLmdbMetaStore({.directory = root->metadata_path(),
                                             .kind = std::string(kKind),
                                             .uuid = root->uuid(),
                                             .create = root->fresh(),
                                             .lock_directory = root->lock_directory()}));
  STRATA_RETURN_IF_ERROR(root->MarkComplete());
  return std::unique_ptr<NativeSnapshotter>(
      new NativeSnapshotter(std::move(root), std::move(store), options));
}

NativeSnapshotter::NativeSnapshotter(std::unique_ptr<StateRoot> root,
                                     std::unique_ptr<MetaStore> store, const NativeOptions& options)
    : TreeSnapshotter(*store, *options.clock),
      sync_at_commit_(options.sync_at_commit),
      root_(std::move(root)),
      store_(std::move(store)),
      directories_(*root_, *store_, {{.mode = 0755}}, options.reaper) {}

StatusOr<SnapshotId> NativeSnapshotter::CreateDirectories(CallContext& call,
                                                          const NewSnapshot& wanted) {
  // A view of a parent shows the parent's tree; its own directory stays empty and only says that
  // the record is whole.
  STRATA_ASSIGN_OR_RETURN(const SnapshotId id, directories_.Take(kOnlyShape));
  if (wanted.kind == Kind::kActive && !wanted.chain.empty()) {
    if (const Status status = FillFromParent(call, id, wanted.chain.front()); !status.ok()) {
      directories_.Discard(id);
      return status;
    }
  }
  return id;
}

Status NativeSnapshotter::FillFromParent(CallContext& call, SnapshotId id, SnapshotId parent) {
  STRATA_FAULT_POINT("create.copy");
  STRATA_ASSIGN_OR_RETURN(const UniqueFd from, directories_.Open(parent));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd to, directories_.Open(id));
  STRATA_RETURN_IF_ERROR(
      Annotate(CopyTree(call, from.get(), to.get()),
               "copy '" + directories_.PathOf(parent) + "' to '" + directories_.PathOf(id) + "'"));
  STRATA_FAULT_POINT("create.copied");
  return OkStatus();
}

void NativeSnapshotter::DiscardDirectories(SnapshotId id) {
  directories_.Discard(id);
}

StatusOr<Usage> NativeSnapshotter::MeasureUsage(CallContext& call, SnapshotId id) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd tree, directories_.Open(id));
  return DiskUsage(call, tree.get());
}

StatusOr<std::vector<Mount>> NativeSnapshotter::BuildMounts(const SnapshotRecord& record) {
  const bool writable = record.info.kind == Kind::kActive;
  const SnapshotId shown = writable || record.chain.empty() ? record.id : record.chain.front();
  return std::vector<Mount>{{.type = "bind",
                             .source = directories_.PathOf(shown),
                             .target = "",
                             .options = {"rbind", writable ? "rw" : "ro"}}};
}

Status NativeSnapshotter::MakeDurable(CallContext& call, SnapshotId id) {
  if (sync_at_commit_ == SyncAtCommit::kNone) {
    return OkStatus();
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd tree, directories_.Open(id));
  return SyncTree(call, tree.get(), sync_at_commit_);
}

Status NativeSnapshotter::StartReclaim() {
  directories_.Reclaim();
  return OkStatus();
}

}  // namespace strata
