// SPDX-License-Identifier: Apache-2.0
//
// TenantSnapshotter: one client's share of a snapshotter that several use. Each has a key space of
// its own: it sees, lists and removes its own snapshots and nobody else's, so that the garbage
// collector of one client cannot take what it does not know for garbage. Directories, layers and
// disk are common. Safe from any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/core/snapshotter.h"

namespace strata {

class TenantSnapshotter final : public Snapshotter {
 public:
  // In the store a tenant's names begin with this byte, its name, and this byte again, and may be
  // shorter by as much. The default
  // tenant ("") has the names without it: those that were there before there were tenants.
  static constexpr char kMark = kTenantMark;
  static constexpr size_t kMaxTenantBytes = 63;

  // a-z, 0-9 and '-', at most kMaxTenantBytes; "" is the default tenant. InvalidArgument else.
  static Status CheckName(std::string_view tenant);

  // `all` must outlive this; `tenant` holds to CheckName.
  TenantSnapshotter(Snapshotter& all, std::string_view tenant);

  StatusOr<SnapshotInfo> Stat(CallContext& call, std::string_view name) override;
  StatusOr<SnapshotInfo> Update(CallContext& call, const SnapshotInfo& info,
                                const std::vector<std::string>& mask) override;
  StatusOr<Usage> GetUsage(CallContext& call, std::string_view key) override;
  StatusOr<std::vector<Mount>> Mounts(CallContext& call, std::string_view key) override;
  StatusOr<std::vector<Mount>> Prepare(CallContext& call, std::string_view key,
                                       std::string_view parent, const Labels& labels) override;
  StatusOr<std::vector<Mount>> View(CallContext& call, std::string_view key,
                                    std::string_view parent, const Labels& labels) override;
  Status Commit(CallContext& call, std::string_view name, std::string_view key,
                const CommitOptions& options) override;
  Status Remove(CallContext& call, std::string_view key) override;
  StatusOr<std::unique_ptr<SnapshotCursor>> List(CallContext& call,
                                                 const std::vector<std::string>& filters) override;
  Status Cleanup(CallContext& call) override { return all_.Cleanup(call); }

 private:
  class Cursor;

  // The store's name for one of the tenant's. InvalidArgument: no name, or, for the default tenant,
  // one that would be another's.
  [[nodiscard]] StatusOr<std::string> Inner(std::string_view what, std::string_view name) const;
  // "" stays "".
  [[nodiscard]] StatusOr<std::string> InnerParent(std::string_view parent) const;
  [[nodiscard]] StatusOr<Labels> InnerLabels(const Labels& labels) const;
  // Whether the row is the tenant's; then it gets the tenant's names.
  bool TakeOut(SnapshotInfo& info) const;
  [[nodiscard]] std::string_view Outer(std::string_view name) const {
    return name.starts_with(prefix_) ? name.substr(prefix_.size()) : name;
  }
  [[nodiscard]] StatusOr<SnapshotInfo> Outer(StatusOr<SnapshotInfo> info) const;
  // Messages speak of the tenant's names.
  [[nodiscard]] Status Outer(const Status& status) const;
  template <typename T>
  [[nodiscard]] StatusOr<T> OuterError(StatusOr<T> result) const {
    return result.ok() ? std::move(result) : StatusOr<T>(Outer(result.status()));
  }

  Snapshotter& all_;
  const std::string prefix_;
  const std::string shown_prefix_;  // as ShowName writes it
};

}  // namespace strata
