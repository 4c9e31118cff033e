// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/snapshot_tree.h"

#include <utility>

namespace strata::tree {
namespace {

constexpr std::string_view kLabelsPath = "labels";
constexpr std::string_view kLabelPrefix = "labels.";

void SetLabel(std::string_view key, const Labels& from, Labels* labels) {
  const auto found = from.find(key);
  if (found == from.end() || found->second.empty()) {
    if (const auto old = labels->find(key); old != labels->end()) {
      labels->erase(old);
    }
    return;
  }
  labels->insert_or_assign(std::string(key), found->second);
}

// The labels after an update with `mask`.
StatusOr<Labels> ApplyMask(const SnapshotInfo& info, const std::vector<std::string>& mask,
                           Labels labels) {
  if (mask.empty()) {
    return WithoutEmpty(info.labels);
  }
  for (const std::string& path : mask) {
    if (path == kLabelsPath) {
      labels = WithoutEmpty(info.labels);
    } else if (path.starts_with(kLabelPrefix) && path.size() > kLabelPrefix.size()) {
      // Everything behind the first "labels." is the key, dots and slashes too.
      SetLabel(std::string_view(path).substr(kLabelPrefix.size()), info.labels, &labels);
    } else {
      return MakeStatus(StatusCode::kInvalidArgument,
                        "cannot update " + ShowName(path) + " field on snapshot " +
                            ShowName(info.name) + ": expected 'labels' or 'labels.KEY'");
    }
  }
  return labels;
}

StatusOr<SnapshotRecord> Add(MetaTransaction& txn, SnapshotId id, Kind kind, std::string_view key,
                             std::string_view parent, const Labels& labels, const Usage& usage,
                             TimeNs now) {
  SnapshotRecord record;
  record.id = id;
  record.usage = usage;
  if (!parent.empty()) {
    STRATA_ASSIGN_OR_RETURN(SnapshotRecord base, FindParent(txn, parent));
    record.chain.reserve(base.chain.size() + 1);
    record.chain.push_back(base.id);
    record.chain.insert(record.chain.end(), base.chain.begin(), base.chain.end());
  }
  STRATA_ASSIGN_OR_RETURN(const auto existing, txn.Find(key));
  if (existing.has_value()) {
    return NameTaken(key);
  }
  record.info = {.name = std::string(key),
                 .parent = std::string(parent),
                 .kind = kind,
                 .created = now,
                 .updated = now,
                 .labels = WithoutEmpty(labels)};
  STRATA_RETURN_IF_ERROR(txn.Put(record));
  return record;
}

}  // namespace

Status NoSuchSnapshot(std::string_view name) {
  return MakeStatus(StatusCode::kNotFound, "snapshot " + ShowName(name) + " does not exist");
}

Status NameTaken(std::string_view name) {
  return MakeStatus(StatusCode::kAlreadyExists, "snapshot " + ShowName(name) + " already exists");
}

Labels WithoutEmpty(const Labels& labels) {
  Labels kept;
  for (const auto& [key, value] : labels) {
    if (!value.empty()) {
      kept.emplace_hint(kept.end(), key, value);
    }
  }
  return kept;
}

Status CheckParent(std::string_view parent, const std::optional<SnapshotRecord>& record) {
  if (!record.has_value()) {
    return MakeStatus(StatusCode::kNotFound,
                      "parent snapshot " + ShowName(parent) + " does not exist");
  }
  if (record->info.kind != Kind::kCommitted) {
    return MakeStatus(StatusCode::kInvalidArgument, "parent snapshot " + ShowName(parent) + " is " +
                                                        std::string(KindName(record->info.kind)) +
                                                        ", expected committed");
  }
  return OkStatus();
}

StatusOr<SnapshotRecord> FindParent(MetaTransaction& txn, std::string_view parent) {
  STRATA_ASSIGN_OR_RETURN(std::optional<SnapshotRecord> record, txn.Find(parent));
  STRATA_RETURN_IF_ERROR(CheckParent(parent, record));
  return *std::move(record);
}

StatusOr<SnapshotRecord> Create(MetaTransaction& txn, SnapshotId id, Kind kind,
                                std::string_view key, std::string_view parent, const Labels& labels,
                                TimeNs now) {
  return Add(txn, id, kind, key, parent, labels, {}, now);
}

StatusOr<SnapshotRecord> CreateCommitted(MetaTransaction& txn, SnapshotId id, std::string_view name,
                                         std::string_view parent, const Labels& labels,
                                         const Usage& usage, TimeNs now) {
  return Add(txn, id, Kind::kCommitted, name, parent, labels, usage, now);
}

Status CheckCommit(std::string_view name, bool name_exists, std::string_view key,
                   const std::optional<SnapshotRecord>& active) {
  if (!active.has_value()) {
    return NoSuchSnapshot(key);
  }
  if (name_exists) {
    return NameTaken(name);
  }
  if (active->info.kind != Kind::kActive) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "cannot commit snapshot " + ShowName(key) + ": it is " +
                          std::string(KindName(active->info.kind)) + ", expected active");
  }
  return OkStatus();
}

Status Commit(MetaTransaction& txn, std::string_view name, std::string_view key,
              const CommitOptions& options, const Usage& usage, TimeNs now) {
  STRATA_ASSIGN_OR_RETURN(std::optional<SnapshotRecord> active, txn.Find(key));
  STRATA_ASSIGN_OR_RETURN(const auto taken, txn.Find(name));
  STRATA_RETURN_IF_ERROR(CheckCommit(name, taken.has_value(), key, active));
  SnapshotRecord committed = *active;
  if (!options.parent.empty() && options.parent != active->info.parent) {
    if (!active->info.parent.empty()) {
      return MakeStatus(StatusCode::kInvalidArgument, "cannot commit snapshot " + ShowName(key) +
                                                          " on parent " + ShowName(options.parent) +
                                                          ": it already has parent " +
                                                          ShowName(active->info.parent));
    }
    STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> parent, txn.Find(options.parent));
    if (parent.has_value() && parent->info.kind != Kind::kCommitted) {
      return MakeStatus(StatusCode::kFailedPrecondition,
                        "parent snapshot " + ShowName(options.parent) + " is " +
                            std::string(KindName(parent->info.kind)) + ", expected committed");
    }
    STRATA_RETURN_IF_ERROR(CheckParent(options.parent, parent));
    committed.info.parent = options.parent;
    committed.chain = {parent->id};
    committed.chain.insert(committed.chain.end(), parent->chain.begin(), parent->chain.end());
  }
  committed.info.name = name;
  committed.info.kind = Kind::kCommitted;
  committed.info.created = now;
  committed.info.updated = now;
  committed.info.labels = WithoutEmpty(options.labels);
  committed.usage = usage;
  return txn.Put(committed);
}

StatusOr<SnapshotRecord> Remove(MetaTransaction& txn, std::string_view key) {
  STRATA_ASSIGN_OR_RETURN(std::optional<SnapshotRecord> record, txn.Find(key));
  if (!record.has_value()) {
    return NoSuchSnapshot(key);
  }
  STRATA_ASSIGN_OR_RETURN(const bool has_children, txn.HasChildren(record->id));
  if (has_children) {
    // containerd's suite looks for "remove" in this text.
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "cannot remove snapshot " + ShowName(key) + " with child");
  }
  STRATA_RETURN_IF_ERROR(txn.Erase(*record));
  return *std::move(record);
}

StatusOr<SnapshotInfo> Update(MetaTransaction& txn, const SnapshotInfo& info,
                              const std::vector<std::string>& mask, TimeNs now) {
  STRATA_ASSIGN_OR_RETURN(std::optional<SnapshotRecord> record, txn.Find(info.name));
  if (!record.has_value()) {
    return NoSuchSnapshot(info.name);
  }
  STRATA_ASSIGN_OR_RETURN(record->info.labels,
                          ApplyMask(info, mask, std::move(record->info.labels)));
  STRATA_RETURN_IF_ERROR(ValidateLabels(record->info.labels));
  record->info.updated = now;
  STRATA_RETURN_IF_ERROR(txn.Put(*record));
  return std::move(record->info);
}

}  // namespace strata::tree
