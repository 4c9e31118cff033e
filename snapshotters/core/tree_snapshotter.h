// SPDX-License-Identifier: Apache-2.0
//
// TreeSnapshotter: what all kinds that keep their layers in directories of their own share: the ten
// operations over a MetaStore, with the directory work left to the kind. Directory work never
// happens inside a transaction. Safe from any thread.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/clock.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/core/snapshotter.h"
#include "snapshotters/core/usage_cache.h"

namespace strata {

class TreeSnapshotter : public Snapshotter {
 public:
  StatusOr<SnapshotInfo> Stat(CallContext& call, std::string_view name) final;
  StatusOr<SnapshotInfo> Update(CallContext& call, const SnapshotInfo& info,
                                const std::vector<std::string>& mask) final;
  StatusOr<Usage> GetUsage(CallContext& call, std::string_view key) final;
  StatusOr<std::vector<Mount>> Mounts(CallContext& call, std::string_view key) final;
  StatusOr<std::vector<Mount>> Prepare(CallContext& call, std::string_view key,
                                       std::string_view parent, const Labels& labels) override;
  StatusOr<std::vector<Mount>> View(CallContext& call, std::string_view key,
                                    std::string_view parent, const Labels& labels) final;
  Status Commit(CallContext& call, std::string_view name, std::string_view key,
                const CommitOptions& options) final;
  Status Remove(CallContext& call, std::string_view key) final;
  StatusOr<std::unique_ptr<SnapshotCursor>> List(CallContext& call,
                                                 const std::vector<std::string>& filters) final;
  Status Cleanup(CallContext& call) final;

  // For looking at what is recorded: whoever changes it goes by way of the calls above.
  [[nodiscard]] MetaStore& store() { return store_; }

 protected:
  // `store` and `clock` must outlive this.
  TreeSnapshotter(MetaStore& store, Clock& clock, UsageCache::Options usages = {})
      : store_(store), clock_(clock), usages_(std::move(usages)) {}

  // A snapshot that is about to be recorded.
  struct NewSnapshot {
    Kind kind = Kind::kActive;
    const Labels& labels;
    const std::vector<SnapshotId>& chain;  // ids of the parents, the immediate one first
  };

  // Makes the directories of a new snapshot, durable in their parent directory, and returns the
  // number they carry. On error nothing stays.
  virtual StatusOr<SnapshotId> CreateDirectories(CallContext& call, const NewSnapshot& wanted) = 0;

  // The record of `id` is gone, or never came to be: its directories may go, in the background.
  virtual void DiscardDirectories(SnapshotId id) = 0;

  // NotFound when the directory is not there.
  virtual StatusOr<Usage> MeasureUsage(CallContext& call, SnapshotId id) = 0;

  // What a committed snapshot takes: what it took when it was committed, unless the kind knows
  // better.
  virtual StatusOr<Usage> CommittedUsage(const SnapshotRecord& record) { return record.usage; }

  // From id, kind, chain and labels alone, and the same each time for the same record.
  virtual StatusOr<std::vector<Mount>> BuildMounts(const SnapshotRecord& record) = 0;

  // Adds to an info that is about to be given out what is not in the record.
  virtual void AddToInfo(SnapshotInfo& /*info*/, SnapshotId /*id*/) {}

  // Active `id` is about to be recorded as committed: whatever is to be durable then, becomes so
  // now. On error it is not committed.
  virtual Status MakeDurable(CallContext& /*call*/, SnapshotId /*id*/) { return OkStatus(); }

  // Starts to give back what DiscardDirectories left; returns at once.
  virtual Status StartReclaim() = 0;

  // A committed snapshot whose content is there without having been written to an active.
  struct NewCommitted {
    std::string_view name;
    std::string_view parent;
    const Labels& labels;
    Usage usage;
  };
  // Records it under number `id`, whose directories exist durably, in one transaction that is
  // durable on return. On error nothing is recorded, and the directories are still the caller's:
  // AlreadyExists, or what Prepare says of a parent.
  Status RecordCommitted(CallContext& call, SnapshotId id, const NewCommitted& wanted);

  // The snapshot of that name, if there is one.
  StatusOr<std::optional<SnapshotRecord>> Look(std::string_view name) { return store_.Find(name); }

 private:
  StatusOr<std::vector<Mount>> Create(CallContext& call, Kind kind, std::string_view key,
                                      std::string_view parent, const Labels& labels);
  StatusOr<SnapshotRecord> Get(std::string_view name);
  // `fresh`: from now, else as the cache has it.
  StatusOr<Usage> Measure(CallContext& call, const SnapshotRecord& record, bool fresh);
  Status MissingDirectory(const Status& status, std::string_view name, SnapshotId id);

  MetaStore& store_;
  Clock& clock_;
  UsageCache usages_;  // of actives
};

}  // namespace strata
