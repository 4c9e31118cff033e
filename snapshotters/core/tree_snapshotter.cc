// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/tree_snapshotter.h"

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "snapshotters/base/fault.h"
#include "snapshotters/core/filter.h"
#include "snapshotters/core/snapshot_tree.h"

namespace strata {
namespace {

// How often a call starts again because a snapshot it had looked at was replaced by another one of
// the same name before its transaction. Each round needs a new replacement in a window of less
// than a millisecond, so this many rounds mean that a caller does it on purpose.
constexpr int kMaxRounds = 8;

// The snapshot looked at outside the transaction is not the one inside it: start again.
Status Replaced() {
  return MakeStatus(StatusCode::kAborted, "a snapshot of that name was replaced meanwhile");
}

template <typename Round>
auto Retry(Round round) -> decltype(round()) {
  auto result = round();
  for (int i = 1; i < kMaxRounds && ToStatus(result).code() == StatusCode::kAborted; ++i) {
    result = round();
  }
  return result;
}

class StoreCursor final : public SnapshotCursor {
 public:
  using Complete = std::function<void(SnapshotInfo&, SnapshotId)>;

  // `store` must outlive this. `complete`: of each row that matches.
  StoreCursor(MetaStore& store, Filter filter, Complete complete)
      : store_(store), filter_(std::move(filter)), complete_(std::move(complete)) {}

  StatusOr<std::vector<SnapshotInfo>> Next() override {
    std::vector<SnapshotInfo> rows;
    while (!at_end_ && rows.size() < kListPageSize) {
      STRATA_ASSIGN_OR_RETURN(std::vector<SnapshotRecord> page,
                              store_.Page(last_, kListPageSize - rows.size()));
      if (page.empty()) {
        at_end_ = true;
        break;
      }
      last_ = page.back().id;
      for (SnapshotRecord& record : page) {
        if (filter_.Matches(record.info)) {
          complete_(record.info, record.id);
          rows.push_back(std::move(record.info));
        }
      }
    }
    return rows;
  }

 private:
  MetaStore& store_;
  Filter filter_;
  const Complete complete_;
  SnapshotId last_ = 0;
  bool at_end_ = false;
};

}  // namespace

StatusOr<SnapshotRecord> TreeSnapshotter::Get(std::string_view name) {
  STRATA_RETURN_IF_ERROR(ValidateName("key", name));
  STRATA_ASSIGN_OR_RETURN(std::optional<SnapshotRecord> record, store_.Find(name));
  if (!record.has_value()) {
    return tree::NoSuchSnapshot(name);
  }
  return *std::move(record);
}

StatusOr<SnapshotInfo> TreeSnapshotter::Stat(CallContext& /*call*/, std::string_view name) {
  STRATA_ASSIGN_OR_RETURN(SnapshotRecord record, Get(name));
  AddToInfo(record.info, record.id);
  return std::move(record.info);
}

StatusOr<SnapshotInfo> TreeSnapshotter::Update(CallContext& call, const SnapshotInfo& info,
                                               const std::vector<std::string>& mask) {
  STRATA_RETURN_IF_ERROR(ValidateName("key", info.name));
  STRATA_RETURN_IF_ERROR(ValidateLabels(info.labels));
  STRATA_RETURN_IF_ERROR(call.Check());
  SnapshotInfo updated;
  SnapshotId id = 0;
  STRATA_RETURN_IF_ERROR(store_.Mutate([&](MetaTransaction& txn) -> Status {
    STRATA_ASSIGN_OR_RETURN(updated, tree::Update(txn, info, mask, clock_.Now()));
    STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> record, txn.Find(info.name));
    id = record.has_value() ? record->id : 0;
    return OkStatus();
  }));
  AddToInfo(updated, id);
  return updated;
}

StatusOr<Usage> TreeSnapshotter::GetUsage(CallContext& call, std::string_view key) {
  STRATA_ASSIGN_OR_RETURN(const SnapshotRecord record, Get(key));
  switch (record.info.kind) {
    case Kind::kView:
      return Usage{};
    case Kind::kCommitted:
      return CommittedUsage(record);
    case Kind::kActive:
      break;
  }
  return Measure(call, record, /*fresh=*/false);
}

StatusOr<Usage> TreeSnapshotter::Measure(CallContext& call, const SnapshotRecord& record,
                                         bool fresh) {
  const auto walk = [&] { return MeasureUsage(call, record.id); };
  StatusOr<Usage> usage =
      fresh ? usages_.Fresh(call, record.id, walk) : usages_.Get(call, record.id, walk);
  if (!usage.ok()) {
    return MissingDirectory(usage.status(), record.info.name, record.id);
  }
  return usage;
}

// A directory that is not there has gone together with its record, because somebody removes the
// snapshot right now, or it is lost. Other errors stay as they are.
Status TreeSnapshotter::MissingDirectory(const Status& status, std::string_view name,
                                         SnapshotId id) {
  if (status.code() != StatusCode::kNotFound || name.empty()) {
    return status;
  }
  STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> now, store_.Find(name));
  if (!now.has_value() || now->id != id) {
    return tree::NoSuchSnapshot(name);
  }
  return MakeStatus(StatusCode::kDataLoss,
                    "snapshot " + ShowName(name) +
                        " has lost its directory: " + std::string(StatusMessage(status)));
}

StatusOr<std::vector<Mount>> TreeSnapshotter::Mounts(CallContext& /*call*/, std::string_view key) {
  STRATA_ASSIGN_OR_RETURN(const SnapshotRecord record, Get(key));
  if (record.info.kind == Kind::kCommitted) {
    return MakeStatus(
        StatusCode::kFailedPrecondition,
        "snapshot " + ShowName(key) + " is committed, expected an active or a view to mount");
  }
  return BuildMounts(record);
}

StatusOr<std::vector<Mount>> TreeSnapshotter::Prepare(CallContext& call, std::string_view key,
                                                      std::string_view parent,
                                                      const Labels& labels) {
  return Create(call, Kind::kActive, key, parent, labels);
}

StatusOr<std::vector<Mount>> TreeSnapshotter::View(CallContext& call, std::string_view key,
                                                   std::string_view parent, const Labels& labels) {
  return Create(call, Kind::kView, key, parent, labels);
}

StatusOr<std::vector<Mount>> TreeSnapshotter::Create(CallContext& call, Kind kind,
                                                     std::string_view key, std::string_view parent,
                                                     const Labels& labels) {
  STRATA_RETURN_IF_ERROR(ValidateName("key", key));
  STRATA_RETURN_IF_ERROR(ValidateLabels(labels));
  if (!parent.empty()) {
    STRATA_RETURN_IF_ERROR(ValidateName("parent", parent));
  }
  return Retry([&]() -> StatusOr<std::vector<Mount>> {
    STRATA_RETURN_IF_ERROR(call.Check());
    std::vector<SnapshotId> chain;
    if (!parent.empty()) {
      STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> base, store_.Find(parent));
      STRATA_RETURN_IF_ERROR(tree::CheckParent(parent, base));
      chain.push_back(base->id);
      chain.insert(chain.end(), base->chain.begin(), base->chain.end());
    }
    // The transaction decides; this look spares the directory work of a call that cannot succeed.
    STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> taken, store_.Find(key));
    if (taken.has_value()) {
      return tree::NameTaken(key);
    }
    const StatusOr<SnapshotId> made =
        CreateDirectories(call, {.kind = kind, .labels = labels, .chain = chain});
    if (!made.ok()) {
      return MissingDirectory(made.status(), parent, chain.empty() ? 0 : chain.front());
    }
    const SnapshotId id = *made;
    std::vector<Mount> mounts;
    const Status status = [&]() -> Status {
      STRATA_FAULT_POINT("create.directories_made");
      const SnapshotRecord planned = {
          .id = id,
          .info = {.name = std::string(key),
                   .parent = std::string(parent),
                   .kind = kind,
                   .labels = tree::WithoutEmpty(labels)},
          .chain = chain,
      };
      STRATA_ASSIGN_OR_RETURN(mounts, BuildMounts(planned));
      return store_.Mutate([&](MetaTransaction& txn) -> Status {
        STRATA_ASSIGN_OR_RETURN(const SnapshotRecord record,
                                tree::Create(txn, id, kind, key, parent, labels, clock_.Now()));
        return record.chain == chain ? OkStatus() : Replaced();
      });
    }();
    if (!status.ok()) {
      DiscardDirectories(id);
      return status;
    }
    STRATA_KILL_POINT("create.recorded");
    return mounts;
  });
}

Status TreeSnapshotter::RecordCommitted(CallContext& call, SnapshotId id,
                                        const NewCommitted& wanted) {
  STRATA_RETURN_IF_ERROR(call.Check());
  STRATA_RETURN_IF_ERROR(store_.Mutate([&](MetaTransaction& txn) -> Status {
    return tree::CreateCommitted(txn, id, wanted.name, wanted.parent, wanted.labels, wanted.usage,
                                 clock_.Now())
        .status();
  }));
  STRATA_KILL_POINT("adopt.recorded");
  return OkStatus();
}

Status TreeSnapshotter::Commit(CallContext& call, std::string_view name, std::string_view key,
                               const CommitOptions& options) {
  STRATA_RETURN_IF_ERROR(ValidateName("key", key));
  STRATA_RETURN_IF_ERROR(ValidateName("name", name));
  STRATA_RETURN_IF_ERROR(ValidateLabels(options.labels));
  if (!options.parent.empty()) {
    STRATA_RETURN_IF_ERROR(ValidateName("parent", options.parent));
  }
  return Retry([&]() -> Status {
    STRATA_RETURN_IF_ERROR(call.Check());
    STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> active, store_.Find(key));
    STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> taken, store_.Find(name));
    STRATA_RETURN_IF_ERROR(tree::CheckCommit(name, taken.has_value(), key, active));
    STRATA_ASSIGN_OR_RETURN(const Usage usage, Measure(call, *active, /*fresh=*/true));
    STRATA_FAULT_POINT("commit.measured");
    if (const Status durable = MakeDurable(call, active->id); !durable.ok()) {
      return MissingDirectory(durable, key, active->id);
    }
    STRATA_FAULT_POINT("commit.durable");
    STRATA_RETURN_IF_ERROR(store_.Mutate([&](MetaTransaction& txn) -> Status {
      STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> now, txn.Find(key));
      if (now.has_value() && now->id != active->id) {
        return Replaced();
      }
      return tree::Commit(txn, name, key, options, usage, clock_.Now());
    }));
    STRATA_KILL_POINT("commit.recorded");
    return OkStatus();
  });
}

Status TreeSnapshotter::Remove(CallContext& call, std::string_view key) {
  STRATA_RETURN_IF_ERROR(ValidateName("key", key));
  STRATA_RETURN_IF_ERROR(call.Check());
  SnapshotId id = 0;
  STRATA_RETURN_IF_ERROR(store_.Mutate([&](MetaTransaction& txn) -> Status {
    STRATA_ASSIGN_OR_RETURN(const SnapshotRecord removed, tree::Remove(txn, key));
    id = removed.id;
    return OkStatus();
  }));
  STRATA_KILL_POINT("remove.recorded");
  usages_.Forget(id);
  DiscardDirectories(id);
  return OkStatus();
}

StatusOr<std::unique_ptr<SnapshotCursor>> TreeSnapshotter::List(
    CallContext& /*call*/, const std::vector<std::string>& filters) {
  STRATA_ASSIGN_OR_RETURN(Filter filter, Filter::Parse(filters));
  return std::make_unique<StoreCursor>(
      store_, std::move(filter),
      [this](SnapshotInfo& info, SnapshotId id) { AddToInfo(info, id); });
}

Status TreeSnapshotter::Cleanup(CallContext& /*call*/) {
  return StartReclaim();
}

}  // namespace strata
