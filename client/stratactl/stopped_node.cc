// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>

#include <optional>
#include <utility>

#include "client/stratactl/node.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/lmdb_meta_store.h"
#include "snapshotters/core/tenant_snapshotter.h"
#include "snapshotters/os/disk_usage.h"
#include "snapshotters/os/lazy_layer_link.h"
#include "snapshotters/os/root_check.h"
#include "snapshotters/os/state_root.h"

namespace strata {
namespace {

constexpr size_t kPageRecords = 100;

class StoppedNode final : public Node {
 public:
  static StatusOr<std::unique_ptr<Node>> Open(const std::string& path) {
    auto node = std::make_unique<StoppedNode>();
    STRATA_ASSIGN_OR_RETURN(node->root_, StateRoot::OpenStopped(path));
    STRATA_RETURN_IF_ERROR(node->OpenStore(LmdbUse::kRead));
    return node;
  }

  StatusOr<Description> Describe() override {
    return Description{.kind = root_->kind(), .root = root_->path()};
  }

  StatusOr<std::vector<NodeSnapshot>> Snapshots(bool labels, Progress& progress) override {
    std::vector<NodeSnapshot> all;
    SnapshotId after = 0;
    while (true) {
      STRATA_ASSIGN_OR_RETURN(std::vector<SnapshotRecord> page, store_->Page(after, kPageRecords));
      if (page.empty()) {
        return all;
      }
      after = page.back().id;
      for (SnapshotRecord& record : page) {
        NodeSnapshot snapshot{.id = record.id};
        if (StatusOr<Usage> usage = UsageOf(record); usage.ok()) {
          snapshot.usage = *usage;
        } else {
          snapshot.unmeasured = std::string(StatusMessage(usage.status()));
        }
        snapshot.info = std::move(record.info);
        if (!labels) {
          snapshot.info.labels.clear();
        }
        TakeTenant(snapshot);
        all.push_back(std::move(snapshot));
        progress.Tell(std::to_string(all.size()) + " snapshots measured");
      }
    }
  }

  StatusOr<NodeCheck> Check(Progress& progress) override {
    const auto tell = [&progress](size_t records, size_t directories) {
      progress.Tell(std::to_string(records) + " records looked at, of " +
                    std::to_string(directories) + " directories");
    };
    STRATA_ASSIGN_OR_RETURN(
        RootCheck found,
        CheckRoot(call_, *store_,
                  {.path = root_->path(), .kind = root_->kind(), .progress = tell}));
    NodeCheck check{
        .records = found.records, .directories = found.directories, .truncated = found.truncated};
    for (RootFinding& finding : found.findings) {
      NodeFinding& out = check.findings.emplace_back();
      out.problem = ProblemName(finding.problem);
      out.found = std::move(finding);
    }
    return check;
  }

  StatusOr<RootSpace> Space() override { return SpaceOf(call_, root_->path()); }

  Status Cleanup() override {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "no daemon serves root '" + root_->path() +
                          "': start it, or remove what is left by fsck --repair");
  }

  Status CanRepair() override { return OkStatus(); }

  StatusOr<std::vector<Status>> Repair(const std::vector<RootFinding>& findings) override {
    STRATA_RETURN_IF_ERROR(OpenStore(LmdbUse::kRepair));
    std::vector<Status> results;
    results.reserve(findings.size());
    for (const RootFinding& finding : findings) {
      results.push_back(RepairRoot(*root_, *store_, finding));
    }
    STRATA_RETURN_IF_ERROR(OpenStore(LmdbUse::kRead));
    return results;
  }

 private:
  Status OpenStore(LmdbUse use) {
    store_.reset();  // LMDB: a file is open once in a process
    STRATA_ASSIGN_OR_RETURN(store_, OpenLmdbMetaStore({.directory = root_->metadata_path(),
                                                       .kind = root_->kind(),
                                                       .uuid = root_->uuid(),
                                                       .use = use}));
    return OkStatus();
  }

  // As the daemon tells it.
  StatusOr<Usage> UsageOf(const SnapshotRecord& record) {
    switch (record.info.kind) {
      case Kind::kView:
        return Usage{};
      case Kind::kActive:
        return Walk(record.id);
      case Kind::kCommitted:
        break;
    }
    const std::optional<std::string> link = LazyLayerLink(root_->snapshots_fd(), record.id);
    if (!link.has_value()) {
      return record.usage;
    }
    STRATA_ASSIGN_OR_RETURN(
        const UniqueFd folder,
        OpenBeneath(root_->fd(), "layers/" + std::to_string(LayerIn(*link)), O_PATH | O_DIRECTORY));
    STRATA_ASSIGN_OR_RETURN(Usage usage, DiskUsage(call_, folder.get()));
    usage.inodes = record.usage.inodes;
    return usage;
  }

  StatusOr<Usage> Walk(SnapshotId id) {
    const std::string path = std::to_string(id) + (root_->kind() == "native" ? "" : "/fs");
    STRATA_ASSIGN_OR_RETURN(const UniqueFd files,
                            OpenBeneath(root_->snapshots_fd(), path, O_PATH | O_DIRECTORY));
    return DiskUsage(call_, files.get());
  }

  std::unique_ptr<StateRoot> root_;
  std::unique_ptr<MetaStore> store_;
  CallContext call_;
};

}  // namespace

StatusOr<std::unique_ptr<Node>> OpenStoppedNode(const std::string& root) {
  return StoppedNode::Open(root);
}

void TakeTenant(NodeSnapshot& snapshot) {
  constexpr char kMark = TenantSnapshotter::kMark;
  const std::string& name = snapshot.info.name;
  const size_t end =
      name.empty() || name.front() != kMark ? std::string::npos : name.find(kMark, 1);
  if (end == std::string::npos) {
    return;
  }
  const std::string prefix = name.substr(0, end + 1);
  snapshot.tenant = name.substr(1, end - 1);
  snapshot.info.name.erase(0, prefix.size());
  if (snapshot.info.parent.starts_with(prefix)) {
    snapshot.info.parent.erase(0, prefix.size());
  }
}

}  // namespace strata
