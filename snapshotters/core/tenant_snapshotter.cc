// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/tenant_snapshotter.h"

#include <algorithm>
#include <utility>

#include "snapshotters/core/filter.h"

namespace strata {
namespace {

std::string PrefixOf(std::string_view tenant) {
  if (tenant.empty()) {
    return {};
  }
  return TenantSnapshotter::kMark + std::string(tenant) + TenantSnapshotter::kMark;
}

bool MayBeInName(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

// Whether a name in the store belongs to a tenant with a name.
bool HasPrefix(std::string_view name) {
  if (!name.starts_with(TenantSnapshotter::kMark)) {
    return false;
  }
  name.remove_prefix(1);
  const auto end = std::find_if_not(name.begin(), name.end(), MayBeInName);
  return end != name.begin() && end != name.end() && *end == TenantSnapshotter::kMark;
}

// What ShowName makes of a name that begins with `prefix`, without the ticks.
std::string ShownPrefix(const std::string& prefix) {
  const std::string shown = ShowName(prefix);
  return shown.substr(1, shown.size() - 2);
}

}  // namespace

// The rows of one tenant, out of all rows. Filters are the tenant's: they are applied to its names.
class TenantSnapshotter::Cursor final : public SnapshotCursor {
 public:
  Cursor(const TenantSnapshotter& tenant, std::unique_ptr<SnapshotCursor> all, Filter filter)
      : tenant_(tenant), all_(std::move(all)), filter_(std::move(filter)) {}

  StatusOr<std::vector<SnapshotInfo>> Next() override {
    std::vector<SnapshotInfo> page;
    while (page.empty()) {
      STRATA_ASSIGN_OR_RETURN(std::vector<SnapshotInfo> rows, all_->Next());
      if (rows.empty()) {
        break;
      }
      for (SnapshotInfo& row : rows) {
        if (tenant_.TakeOut(row) && filter_.Matches(row)) {
          page.push_back(std::move(row));
        }
      }
    }
    return page;
  }

 private:
  const TenantSnapshotter& tenant_;
  const std::unique_ptr<SnapshotCursor> all_;
  const Filter filter_;
};

Status TenantSnapshotter::CheckName(std::string_view tenant) {
  const bool good =
      tenant.size() <= kMaxTenantBytes && std::all_of(tenant.begin(), tenant.end(), MayBeInName);
  return good ? OkStatus()
              : MakeStatus(StatusCode::kInvalidArgument,
                           "tenant " + ShowName(tenant) + ": expected at most " +
                               std::to_string(kMaxTenantBytes) + " of a-z, 0-9 and '-'");
}

TenantSnapshotter::TenantSnapshotter(Snapshotter& all, std::string_view tenant)
    : all_(all), prefix_(PrefixOf(tenant)), shown_prefix_(ShownPrefix(prefix_)) {}

StatusOr<std::string> TenantSnapshotter::Inner(std::string_view what, std::string_view name) const {
  STRATA_RETURN_IF_ERROR(ValidateName(what, name));
  if (prefix_.empty() && HasPrefix(name)) {
    return MakeStatus(StatusCode::kInvalidArgument, std::string(what) + " " + ShowName(name) +
                                                        ": it looks like another tenant's");
  }
  return prefix_ + std::string(name);
}

StatusOr<std::string> TenantSnapshotter::InnerParent(std::string_view parent) const {
  return parent.empty() ? StatusOr<std::string>(std::string()) : Inner("parent", parent);
}

StatusOr<Labels> TenantSnapshotter::InnerLabels(const Labels& labels) const {
  Labels inner = labels;
  const auto ref = inner.find(kSnapshotRefLabel);
  if (ref != inner.end() && !ref->second.empty()) {
    STRATA_ASSIGN_OR_RETURN(ref->second, Inner("snapshot.ref", ref->second));
  }
  return inner;
}

bool TenantSnapshotter::TakeOut(SnapshotInfo& info) const {
  if (prefix_.empty() ? HasPrefix(info.name) : !info.name.starts_with(prefix_)) {
    return false;
  }
  info.name.erase(0, prefix_.size());
  info.parent = Outer(info.parent);
  const auto ref = info.labels.find(kSnapshotRefLabel);
  if (ref != info.labels.end()) {
    ref->second = Outer(ref->second);
  }
  return true;
}

StatusOr<SnapshotInfo> TenantSnapshotter::Outer(StatusOr<SnapshotInfo> info) const {
  if (!info.ok()) {
    return Outer(info.status());
  }
  (void)TakeOut(*info);  // it was asked for by the tenant's name
  return info;
}

Status TenantSnapshotter::Outer(const Status& status) const {
  if (status.ok() || prefix_.empty()) {
    return status;
  }
  std::string message(StatusMessage(status));
  for (size_t at = message.find(shown_prefix_); at != std::string::npos;
       at = message.find(shown_prefix_, at)) {
    message.erase(at, shown_prefix_.size());
  }
  Status outer = MakeStatus(status.code(), message);
  status.ForEachPayload([&outer](absl::string_view type, const absl::Cord& payload) {
    outer.SetPayload(type, payload);
  });
  return outer;
}

StatusOr<SnapshotInfo> TenantSnapshotter::Stat(CallContext& call, std::string_view name) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("name", name));
  return Outer(all_.Stat(call, inner));
}

StatusOr<SnapshotInfo> TenantSnapshotter::Update(CallContext& call, const SnapshotInfo& info,
                                                 const std::vector<std::string>& mask) {
  SnapshotInfo inner = info;
  STRATA_ASSIGN_OR_RETURN(inner.name, Inner("name", info.name));
  STRATA_ASSIGN_OR_RETURN(inner.labels, InnerLabels(info.labels));
  return Outer(all_.Update(call, inner, mask));
}

StatusOr<Usage> TenantSnapshotter::GetUsage(CallContext& call, std::string_view key) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("key", key));
  return OuterError(all_.GetUsage(call, inner));
}

StatusOr<std::vector<Mount>> TenantSnapshotter::Mounts(CallContext& call, std::string_view key) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("key", key));
  return OuterError(all_.Mounts(call, inner));
}

StatusOr<std::vector<Mount>> TenantSnapshotter::Prepare(CallContext& call, std::string_view key,
                                                        std::string_view parent,
                                                        const Labels& labels) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("key", key));
  STRATA_ASSIGN_OR_RETURN(const std::string inner_parent, InnerParent(parent));
  STRATA_ASSIGN_OR_RETURN(const Labels inner_labels, InnerLabels(labels));
  return OuterError(all_.Prepare(call, inner, inner_parent, inner_labels));
}

StatusOr<std::vector<Mount>> TenantSnapshotter::View(CallContext& call, std::string_view key,
                                                     std::string_view parent,
                                                     const Labels& labels) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("key", key));
  STRATA_ASSIGN_OR_RETURN(const std::string inner_parent, InnerParent(parent));
  STRATA_ASSIGN_OR_RETURN(const Labels inner_labels, InnerLabels(labels));
  return OuterError(all_.View(call, inner, inner_parent, inner_labels));
}

Status TenantSnapshotter::Commit(CallContext& call, std::string_view name, std::string_view key,
                                 const CommitOptions& options) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner_name, Inner("name", name));
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("key", key));
  CommitOptions inner_options = options;
  STRATA_ASSIGN_OR_RETURN(inner_options.parent, InnerParent(options.parent));
  STRATA_ASSIGN_OR_RETURN(inner_options.labels, InnerLabels(options.labels));
  return Outer(all_.Commit(call, inner_name, inner, inner_options));
}

Status TenantSnapshotter::Remove(CallContext& call, std::string_view key) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("key", key));
  return Outer(all_.Remove(call, inner));
}

StatusOr<std::unique_ptr<SnapshotCursor>> TenantSnapshotter::List(
    CallContext& call, const std::vector<std::string>& filters) {
  STRATA_ASSIGN_OR_RETURN(Filter filter, Filter::Parse(filters));
  STRATA_ASSIGN_OR_RETURN(auto all, all_.List(call, {}));
  return std::make_unique<Cursor>(*this, std::move(all), std::move(filter));
}

}  // namespace strata
