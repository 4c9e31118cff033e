// SPDX-License-Identifier: Apache-2.0
#include "client/worker_snapshots.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "client/file_lock.h"
#include "snapshotters/base/digest.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/tenant_snapshotter.h"
#include "snapshotters/os/directory_entries.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Under this prefix a label passes containerd's metadata layer, too (FilterInheritedLabels).
constexpr std::string_view kTypeLabel = "containerd.io/snapshot/strata-worker.type";
constexpr std::string_view kDescriptionLabel = "containerd.io/snapshot/strata-worker.description";
constexpr std::string_view kLastUsedLabel = "containerd.io/snapshot/strata-worker.last-used";
constexpr std::string_view kUseCountLabel = "containerd.io/snapshot/strata-worker.use-count";
constexpr const char* kBootIdFile = "/proc/sys/kernel/random/boot_id";
constexpr size_t kMaxBootIdBytes = 64;
// On the socket of containerd itself its garbage collector would take what no lease names.
constexpr std::string_view kRootLabel = "containerd.io/gc.root";
constexpr size_t kMaxLabelBytes = 4096;  // containerd: of key and value together

constexpr size_t kMaxWorkerIdBytes = 64;
constexpr mode_t kHoldsMode = 0700;
// A removal that holds us up is one call to the snapshotter.
constexpr milliseconds kHoldLimit{30'000};
constexpr milliseconds kHoldPoll{2};

constexpr std::pair<RecordType, std::string_view> kTypeNames[] = {
    {RecordType::kRegular, "regular"},
    {RecordType::kInternal, "internal"},
    {RecordType::kFrontend, "frontend"},
    {RecordType::kSourceLocal, "source.local"},
    {RecordType::kSourceGit, "source.git.checkout"},
    {RecordType::kCacheMount, "exec.cachemount"},
};

RecordType TypeNamed(std::string_view name) {
  const auto* found =
      std::ranges::find(kTypeNames, name, &std::pair<RecordType, std::string_view>::second);
  return found == std::end(kTypeNames) ? RecordType::kRegular : found->first;
}

bool IsWord(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
}

// What of `text` fits a label `key`, whole runes only.
std::string_view CutForLabel(std::string_view text, std::string_view key) {
  const size_t limit = kMaxLabelBytes - key.size() - 1;
  if (text.size() <= limit) {
    return text;
  }
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) {
    --end;
  }
  return text.substr(0, end);
}

template <typename Number>
Number NumberLabel(const Labels& labels, std::string_view key, Number otherwise) {
  const auto found = labels.find(key);
  if (found == labels.end()) {
    return otherwise;
  }
  const char* end = found->second.data() + found->second.size();
  Number number{};
  const auto [at, error] = std::from_chars(found->second.data(), end, number);
  return error == std::errc() && at == end ? number : otherwise;
}

std::string HoldFile(std::string_view name) {
  const std::string digest = Sha256Text(name);
  return digest.substr(digest.find(':') + 1);
}

class FileHold final : public WorkerSnapshots::Hold {
 public:
  FileHold(std::shared_ptr<const UniqueFd> directory, std::string file, FileLock lock)
      : directory_(std::move(directory)), file_(std::move(file)), lock_(std::move(lock)) {}
  ~FileHold() override { lock_.Remove(directory_->get(), file_); }
  FileHold(const FileHold&) = delete;
  FileHold& operator=(const FileHold&) = delete;

 private:
  const std::shared_ptr<const UniqueFd> directory_;
  const std::string file_;
  FileLock lock_;
};

class LabelledSnapshots final : public WorkerSnapshots {
 public:
  LabelledSnapshots(Snapshotter& snapshotter, const Options& options, std::string boot_id,
                    UniqueFd holds)
      : snapshotter_(snapshotter),
        clock_(*options.clock),
        boot_id_(std::move(boot_id)),
        prefix_("strata-worker/" + options.worker_id + "/"),
        holds_(std::make_shared<const UniqueFd>(std::move(holds))) {}

  [[nodiscard]] const std::string& prefix() const override { return prefix_; }
  [[nodiscard]] Clock& clock() const override { return clock_; }

  StatusOr<std::vector<Mount>> Prepare(CallContext& call, std::string_view name,
                                       std::string_view parent, RecordType type,
                                       std::string_view description, const Labels& labels) override;
  StatusOr<std::vector<Mount>> View(CallContext& call, std::string_view name,
                                    std::string_view parent) override;
  StatusOr<std::vector<Mount>> Mounts(CallContext& call, std::string_view name) override;
  Status Commit(CallContext& call, std::string_view name, std::string_view active, RecordType type,
                std::string_view description, const Labels& labels) override;
  Status Remove(CallContext& call, std::string_view name) override;
  Status RemoveUnused(CallContext& call, std::string_view name) override;
  Status Cleanup(CallContext& call) override;
  StatusOr<WorkerRecord> Find(CallContext& call, std::string_view name) override;
  StatusOr<std::vector<WorkerRecord>> List(CallContext& call, bool with_usage) override;
  Status Touch(CallContext& call, std::string_view name) override;
  Status MarkSynced(CallContext& call, std::string_view name) override;
  StatusOr<std::unique_ptr<Hold>> HoldSnapshot(std::string_view name) override;

 private:
  // The snapshotter's name for one of ours.
  [[nodiscard]] StatusOr<std::string> Inner(std::string_view what, std::string_view name) const;
  // The labels of a new record.
  [[nodiscard]] StatusOr<Labels> RecordLabels(RecordType type, std::string_view description,
                                              const Labels& labels) const;
  [[nodiscard]] WorkerRecord RecordOf(const SnapshotInfo& info) const;
  // Messages speak of our names.
  [[nodiscard]] Status Outer(const Status& status) const;
  template <typename T>
  [[nodiscard]] StatusOr<T> Outer(StatusOr<T> result) const {
    return result.ok() ? std::move(result) : StatusOr<T>(Outer(result.status()));
  }

  [[nodiscard]] StatusOr<std::vector<SnapshotInfo>> Rows(CallContext& call) const;
  Status MeasureAll(CallContext& call, std::vector<WorkerRecord>& records) const;
  Status FindHolders(std::vector<WorkerRecord>& records) const;

  // Prepare and View, with the hold that goes with them.
  template <typename Make>
  StatusOr<std::vector<Mount>> MakeHeld(std::string_view name, std::string_view parent,
                                        const Make& make);
  void LetGo(std::string_view name);

  Snapshotter& snapshotter_;
  Clock& clock_;
  const std::string boot_id_;
  const std::string prefix_;
  const std::shared_ptr<const UniqueFd> holds_;

  Mutex mutex_;
  // Of what this object has prepared or viewed.
  std::map<std::string, std::unique_ptr<Hold>, std::less<>> made_ ABSL_GUARDED_BY(mutex_);
};

StatusOr<std::string> LabelledSnapshots::Inner(std::string_view what, std::string_view name) const {
  STRATA_RETURN_IF_ERROR(ValidateName(what, name));
  return prefix_ + std::string(name);
}

Status LabelledSnapshots::Outer(const Status& status) const {
  if (status.ok()) {
    return status;
  }
  std::string message(StatusMessage(status));
  for (size_t at = message.find(prefix_); at != std::string::npos; at = message.find(prefix_, at)) {
    message.erase(at, prefix_.size());
  }
  Status outer = MakeStatus(status.code(), message);
  status.ForEachPayload([&outer](absl::string_view type, const absl::Cord& payload) {
    outer.SetPayload(type, payload);
  });
  return outer;
}

StatusOr<Labels> LabelledSnapshots::RecordLabels(RecordType type, std::string_view description,
                                                 const Labels& labels) const {
  Labels all = labels;
  const auto ref = all.find(kSnapshotRefLabel);
  if (ref != all.end() && !ref->second.empty()) {
    // The name under which a lazy snapshotter commits by itself.
    STRATA_ASSIGN_OR_RETURN(ref->second, Inner("snapshot.ref", ref->second));
  }
  if (const auto unsynced = all.find(kUnsyncedLabel); unsynced != all.end()) {
    unsynced->second = boot_id_;
  }
  all.insert_or_assign(std::string(kRootLabel), "strata-worker");
  all.insert_or_assign(std::string(kTypeLabel), std::string(RecordTypeName(type)));
  all.insert_or_assign(std::string(kLastUsedLabel), std::to_string(clock_.Now()));
  if (!description.empty()) {
    all.insert_or_assign(std::string(kDescriptionLabel),
                         std::string(CutForLabel(description, kDescriptionLabel)));
  }
  return all;
}

WorkerRecord LabelledSnapshots::RecordOf(const SnapshotInfo& info) const {
  const auto text = [&info](std::string_view key) {
    const auto found = info.labels.find(key);
    return found == info.labels.end() ? std::string_view() : std::string_view(found->second);
  };
  WorkerRecord record;
  record.name = info.name.substr(prefix_.size());
  record.parent =
      info.parent.starts_with(prefix_) ? info.parent.substr(prefix_.size()) : info.parent;
  record.kind = info.kind;
  record.type = TypeNamed(text(kTypeLabel));
  record.description = text(kDescriptionLabel);
  record.created = info.created;
  record.last_used = NumberLabel<TimeNs>(info.labels, kLastUsedLabel, info.created);
  record.use_count = NumberLabel<uint64_t>(info.labels, kUseCountLabel, 0);
  record.shared = info.labels.contains(kSharedRecordLabel);
  // What an Update of containerd's metadata leaves of a label that it takes away may be "".
  if (const std::string_view boot = text(kUnsyncedLabel); !boot.empty()) {
    record.data = boot == boot_id_ ? WorkerRecord::Data::kUnsynced : WorkerRecord::Data::kDoubtful;
  }
  return record;
}

template <typename Make>
StatusOr<std::vector<Mount>> LabelledSnapshots::MakeHeld(std::string_view name,
                                                         std::string_view parent,
                                                         const Make& make) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("name", name));
  std::string inner_parent;
  if (!parent.empty()) {
    STRATA_ASSIGN_OR_RETURN(inner_parent, Inner("parent", parent));
  }
  // Before it is there: a prune must not come between.
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<Hold> hold, HoldSnapshot(name));
  StatusOr<std::vector<Mount>> mounts = Outer(make(inner, inner_parent));
  if (mounts.ok()) {
    const MutexLock lock(mutex_);
    made_[std::string(name)].swap(hold);
  }
  return mounts;
}

void LabelledSnapshots::LetGo(std::string_view name) {
  std::unique_ptr<Hold> hold;  // goes after the lock
  const MutexLock lock(mutex_);
  const auto found = made_.find(name);
  if (found != made_.end()) {
    hold = std::move(found->second);
    made_.erase(found);
  }
}

StatusOr<std::vector<Mount>> LabelledSnapshots::Prepare(CallContext& call, std::string_view name,
                                                        std::string_view parent, RecordType type,
                                                        std::string_view description,
                                                        const Labels& labels) {
  STRATA_ASSIGN_OR_RETURN(const Labels all, RecordLabels(type, description, labels));
  return MakeHeld(name, parent, [&](const std::string& key, const std::string& on) {
    return snapshotter_.Prepare(call, key, on, all);
  });
}

StatusOr<std::vector<Mount>> LabelledSnapshots::View(CallContext& call, std::string_view name,
                                                     std::string_view parent) {
  STRATA_ASSIGN_OR_RETURN(const Labels all, RecordLabels(RecordType::kRegular, "", {}));
  return MakeHeld(name, parent, [&](const std::string& key, const std::string& on) {
    return snapshotter_.View(call, key, on, all);
  });
}

StatusOr<std::vector<Mount>> LabelledSnapshots::Mounts(CallContext& call, std::string_view name) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("name", name));
  return Outer(snapshotter_.Mounts(call, inner));
}

Status LabelledSnapshots::Commit(CallContext& call, std::string_view name, std::string_view active,
                                 RecordType type, std::string_view description,
                                 const Labels& labels) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("name", name));
  STRATA_ASSIGN_OR_RETURN(const std::string key, Inner("key", active));
  CommitOptions options;
  STRATA_ASSIGN_OR_RETURN(options.labels, RecordLabels(type, description, labels));
  STRATA_RETURN_IF_ERROR(Outer(snapshotter_.Commit(call, inner, key, options)));
  LetGo(active);
  return OkStatus();
}

Status LabelledSnapshots::Remove(CallContext& call, std::string_view name) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("name", name));
  STRATA_RETURN_IF_ERROR(Outer(snapshotter_.Remove(call, inner)));
  LetGo(name);
  return OkStatus();
}

Status LabelledSnapshots::RemoveUnused(CallContext& call, std::string_view name) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("name", name));
  const std::string file = HoldFile(name);
  STRATA_ASSIGN_OR_RETURN(std::optional<FileLock> lock,
                          FileLock::Try(holds_->get(), file, FileLock::Mode::kExclusive));
  if (!lock.has_value()) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "remove " + ShowName(name) + ": it is in use");
  }
  const FileHold exclusive(holds_, file, *std::move(lock));
  return Outer(snapshotter_.Remove(call, inner));
}

Status LabelledSnapshots::Cleanup(CallContext& call) {
  const Status status = snapshotter_.Cleanup(call);
  return status.code() == StatusCode::kUnimplemented ? OkStatus() : Outer(status);
}

StatusOr<WorkerRecord> LabelledSnapshots::Find(CallContext& call, std::string_view name) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("name", name));
  STRATA_ASSIGN_OR_RETURN(const SnapshotInfo info, Outer(snapshotter_.Stat(call, inner)));
  WorkerRecord record = RecordOf(info);
  STRATA_ASSIGN_OR_RETURN(record.in_use, FileLock::IsLocked(holds_->get(), HoldFile(name)));
  return record;
}

StatusOr<std::vector<SnapshotInfo>> LabelledSnapshots::Rows(CallContext& call) const {
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<SnapshotCursor> cursor,
                          Outer(snapshotter_.List(call, {"name~=\"^" + prefix_ + "\""})));
  std::vector<SnapshotInfo> rows;
  while (true) {
    STRATA_ASSIGN_OR_RETURN(std::vector<SnapshotInfo> page, Outer(cursor->Next()));
    if (page.empty()) {
      return rows;
    }
    for (SnapshotInfo& row : page) {
      // A server may ignore filters.
      if (row.name.starts_with(prefix_) && row.name.size() > prefix_.size()) {
        rows.push_back(std::move(row));
      }
    }
  }
}

Status LabelledSnapshots::MeasureAll(CallContext& call, std::vector<WorkerRecord>& records) const {
  std::vector<WorkerRecord> measured;
  measured.reserve(records.size());
  for (WorkerRecord& record : records) {
    const StatusOr<Usage> usage = snapshotter_.GetUsage(call, prefix_ + record.name);
    if (usage.ok()) {
      record.usage = *usage;
      measured.push_back(std::move(record));
    } else if (usage.status().code() !=
               StatusCode::kNotFound) {  // else removed since it was listed
      return Outer(usage.status());
    }
  }
  records = std::move(measured);
  return OkStatus();
}

Status LabelledSnapshots::FindHolders(std::vector<WorkerRecord>& records) const {
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> entries, DirectoryEntries(holds_->get()));
  const std::set<std::string> files(entries.begin(), entries.end());
  std::unordered_map<std::string_view, WorkerRecord*> by_name;
  for (WorkerRecord& record : records) {
    by_name.emplace(record.name, &record);
  }
  for (WorkerRecord& record : records) {
    const std::string file = HoldFile(record.name);
    if (record.in_use || !files.contains(file)) {
      continue;
    }
    STRATA_ASSIGN_OR_RETURN(const bool held, FileLock::IsLocked(holds_->get(), file));
    // With it all that it stands on, up to what is marked already.
    for (WorkerRecord* used = held ? &record : nullptr; used != nullptr && !used->in_use;) {
      used->in_use = true;
      const auto parent = by_name.find(used->parent);
      used = parent == by_name.end() ? nullptr : parent->second;
    }
  }
  return OkStatus();
}

StatusOr<std::vector<WorkerRecord>> LabelledSnapshots::List(CallContext& call, bool with_usage) {
  STRATA_ASSIGN_OR_RETURN(const std::vector<SnapshotInfo> rows, Rows(call));
  std::vector<WorkerRecord> records;
  records.reserve(rows.size());
  for (const SnapshotInfo& row : rows) {
    records.push_back(RecordOf(row));
  }
  if (with_usage) {
    STRATA_RETURN_IF_ERROR(MeasureAll(call, records));
  }
  STRATA_RETURN_IF_ERROR(FindHolders(records));
  return records;
}

Status LabelledSnapshots::Touch(CallContext& call, std::string_view name) {
  STRATA_ASSIGN_OR_RETURN(const std::string inner, Inner("name", name));
  STRATA_ASSIGN_OR_RETURN(const SnapshotInfo info, Outer(snapshotter_.Stat(call, inner)));
  const auto count = NumberLabel<uint64_t>(info.labels, kUseCountLabel, 0);
  SnapshotInfo changed;
  changed.name = inner;
  changed.labels = {{std::string(kLastUsedLabel), std::to_string(clock_.Now())},
                    {std::string(kUseCountLabel), std::to_string(count + 1)}};
  const std::vector<std::string> mask = {"labels." + std::string(kLastUsedLabel),
                                         "labels." + std::string(kUseCountLabel)};
  return Outer(snapshotter_.Update(call, changed, mask).status());
}

Status LabelledSnapshots::MarkSynced(CallContext& call, std::string_view name) {
  SnapshotInfo changed;
  STRATA_ASSIGN_OR_RETURN(changed.name, Inner("name", name));
  // A mask that names a label which is not given takes it away.
  return Outer(
      snapshotter_.Update(call, changed, {"labels." + std::string(kUnsyncedLabel)}).status());
}

StatusOr<std::unique_ptr<WorkerSnapshots::Hold>> LabelledSnapshots::HoldSnapshot(
    std::string_view name) {
  STRATA_RETURN_IF_ERROR(ValidateName("name", name));
  const std::string file = HoldFile(name);
  const auto deadline = steady_clock::now() + kHoldLimit;
  while (true) {
    STRATA_ASSIGN_OR_RETURN(std::optional<FileLock> lock,
                            FileLock::Try(holds_->get(), file, FileLock::Mode::kShared));
    if (lock.has_value()) {
      return std::make_unique<FileHold>(holds_, file, *std::move(lock));
    }
    if (steady_clock::now() > deadline) {
      return MakeStatus(StatusCode::kDeadlineExceeded,
                        "hold " + ShowName(name) + ": still being removed after " +
                            std::to_string(kHoldLimit.count()) + " ms");
    }
    const timespec pause{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(kHoldPoll).count()};
    (void)::nanosleep(&pause, nullptr);  // a signal only means to look earlier
  }
}

}  // namespace

std::string_view RecordTypeName(RecordType type) {
  const auto* found =
      std::ranges::find(kTypeNames, type, &std::pair<RecordType, std::string_view>::first);
  return found == std::end(kTypeNames) ? "regular" : found->second;
}

StatusOr<std::unique_ptr<WorkerSnapshots>> WorkerSnapshots::Create(Snapshotter& snapshotter,
                                                                   const Options& options) {
  if (options.worker_id.empty() || options.worker_id.size() > kMaxWorkerIdBytes ||
      !IsWord(options.worker_id)) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "worker id " + ShowName(options.worker_id) + ": expected 1 to " +
                          std::to_string(kMaxWorkerIdBytes) + " letters, digits, '-' and '_'");
  }
  STRATA_RETURN_IF_ERROR(MakePath(options.holds_directory, kHoldsMode));
  STRATA_ASSIGN_OR_RETURN(UniqueFd holds,
                          OpenFile(options.holds_directory, O_RDONLY | O_DIRECTORY));
  std::string boot_id = options.boot_id;
  if (boot_id.empty()) {
    STRATA_ASSIGN_OR_RETURN(boot_id, ReadFileAt(AT_FDCWD, kBootIdFile, kMaxBootIdBytes));
    boot_id.resize(std::min(boot_id.find('\n'), boot_id.size()));
  }
  return std::make_unique<LabelledSnapshots>(snapshotter, options, std::move(boot_id),
                                             std::move(holds));
}

}  // namespace strata
