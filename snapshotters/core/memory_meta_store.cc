// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/memory_meta_store.h"

#include <map>
#include <utility>

#include "snapshotters/base/mutex.h"

namespace strata {
namespace {

// All of the state; a transaction works on a copy.
struct Tables {
  std::map<SnapshotId, SnapshotRecord> records;
  std::map<std::string, SnapshotId, std::less<>> names;
};

class MemoryTransaction final : public MetaTransaction {
 public:
  explicit MemoryTransaction(Tables& tables) : tables_(tables) {}

  StatusOr<std::optional<SnapshotRecord>> Find(std::string_view name) override {
    const auto found = tables_.names.find(name);
    if (found == tables_.names.end()) {
      return std::optional<SnapshotRecord>();
    }
    return std::optional<SnapshotRecord>(tables_.records.at(found->second));
  }

  StatusOr<bool> HasChildren(SnapshotId id) override {
    for (const auto& [child, record] : tables_.records) {
      if (!record.chain.empty() && record.chain.front() == id) {
        return true;
      }
    }
    return false;
  }

  Status Put(const SnapshotRecord& record) override {
    if (const auto old = tables_.records.find(record.id); old != tables_.records.end()) {
      tables_.names.erase(old->second.info.name);
    }
    tables_.names.insert_or_assign(record.info.name, record.id);
    tables_.records.insert_or_assign(record.id, record);
    return OkStatus();
  }

  Status Erase(const SnapshotRecord& record) override {
    tables_.names.erase(record.info.name);
    tables_.records.erase(record.id);
    return OkStatus();
  }

 private:
  Tables& tables_;
};

class MemoryMetaStore final : public MetaStore {
 public:
  Status Mutate(const Mutation& mutation) override {
    const MutexLock lock(mutex_);
    Tables changed = tables_;
    MemoryTransaction txn(changed);
    STRATA_RETURN_IF_ERROR(mutation(txn));
    tables_ = std::move(changed);
    return OkStatus();
  }

  StatusOr<std::optional<SnapshotRecord>> Find(std::string_view name) override {
    const MutexLock lock(mutex_);
    return MemoryTransaction(tables_).Find(name);
  }

  StatusOr<std::vector<SnapshotRecord>> Page(SnapshotId after, size_t limit) override {
    const MutexLock lock(mutex_);
    std::vector<SnapshotRecord> page;
    for (auto it = tables_.records.upper_bound(after);
         it != tables_.records.end() && page.size() < limit; ++it) {
      page.push_back(it->second);
    }
    return page;
  }

  StatusOr<std::vector<SnapshotId>> Ids() override {
    const MutexLock lock(mutex_);
    std::vector<SnapshotId> ids;
    ids.reserve(tables_.records.size());
    for (const auto& [id, record] : tables_.records) {
      ids.push_back(id);
    }
    return ids;
  }

  [[nodiscard]] SnapshotId FirstNewId() const override { return 1; }

  StatusOr<SnapshotId> NextId() override {
    const MutexLock lock(mutex_);
    return next_id_++;
  }

 private:
  Mutex mutex_;
  Tables tables_ ABSL_GUARDED_BY(mutex_);
  SnapshotId next_id_ ABSL_GUARDED_BY(mutex_) = 1;
};

}  // namespace

std::unique_ptr<MetaStore> NewMemoryMetaStore() {
  return std::make_unique<MemoryMetaStore>();
}

}  // namespace strata
