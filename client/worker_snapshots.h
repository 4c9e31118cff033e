// SPDX-License-Identifier: Apache-2.0
//
// WorkerSnapshots: a worker's own snapshots on a snapshotter that others may use, too. All its
// names begin with a prefix of its own, and what it has to remember of them (type, last use, what
// for) are labels of the snapshots themselves: there is no second database that could disagree with
// the first, or lose what it could not look up while the snapshotter was away. Safe from any
// thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/clock.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshotter.h"

namespace strata {

// BuildKit's words (worker-parity 2.5).
enum class RecordType { kRegular, kInternal, kFrontend, kSourceLocal, kSourceGit, kCacheMount };

// "regular", "internal", "frontend", "source.local", "source.git.checkout", "exec.cachemount".
std::string_view RecordTypeName(RecordType type);

// Given to Prepare or Commit with any value: the record is `shared`.
inline constexpr std::string_view kSharedRecordLabel =
    "containerd.io/snapshot/strata-worker.shared";

// Given to Commit with any value: the record is committed before its data is on the disk, and the
// label's value becomes the boot's id. See WorkerRecord::data and MarkSynced.
inline constexpr std::string_view kUnsyncedLabel = "containerd.io/snapshot/strata-worker.unsynced";

struct WorkerRecord {
  // kUnsynced: all of it is to be seen, but a power cut would take some. kDoubtful: it was that
  // when the machine went down, and nobody knows what of it is there.
  enum class Data { kSynced, kUnsynced, kDoubtful };

  std::string name;    // without the prefix
  std::string parent;  // the same; "" for none
  Kind kind = Kind::kActive;
  RecordType type = RecordType::kRegular;
  std::string description;
  TimeNs created{};
  TimeNs last_used{};
  uint64_t use_count = 0;
  bool in_use = false;  // somebody holds it now (Hold)
  // Somebody outside of this worker stands on it, too (kSharedRecordLabel): its bytes are not
  // counted, and only `all` rules prune it.
  bool shared = false;
  Data data = Data::kSynced;
  Usage usage;  // only when asked for
};

class WorkerSnapshots {
 public:
  struct Options {
    std::string worker_id;  // 25 letters and digits; InvalidArgument for what is no plain word
    // Files by which processes say what they use: a lock (FileLock) on <hash of the name>.
    // Absolute; made when missing.
    std::string holds_directory;
    Clock* clock = &Clock::System();  // must outlive this
    std::string boot_id;              // "": the kernel's (/proc/sys/kernel/random/boot_id)
  };

  // `snapshotter` must outlive this.
  static StatusOr<std::unique_ptr<WorkerSnapshots>> Create(Snapshotter& snapshotter,
                                                           const Options& options);
  virtual ~WorkerSnapshots() = default;

  // "strata-worker/<worker id>/".
  [[nodiscard]] virtual const std::string& prefix() const = 0;

  // As Snapshotter's, on names without the prefix, also in messages and in the label
  // containerd.io/snapshot.ref; labels are added to those of the record. What was prepared or
  // viewed is held (see Hold) until it is committed or removed, or this object ends.
  virtual StatusOr<std::vector<Mount>> Prepare(CallContext& call, std::string_view name,
                                               std::string_view parent, RecordType type,
                                               std::string_view description,
                                               const Labels& labels) = 0;
  virtual StatusOr<std::vector<Mount>> View(CallContext& call, std::string_view name,
                                            std::string_view parent) = 0;
  virtual StatusOr<std::vector<Mount>> Mounts(CallContext& call, std::string_view name) = 0;
  virtual Status Commit(CallContext& call, std::string_view name, std::string_view active,
                        RecordType type, std::string_view description, const Labels& labels) = 0;
  virtual Status Remove(CallContext& call, std::string_view name) = 0;
  // Remove, unless somebody holds `name`: FailedPrecondition.
  virtual Status RemoveUnused(CallContext& call, std::string_view name) = 0;
  // OK, too, for a snapshotter that has no such thing.
  virtual Status Cleanup(CallContext& call) = 0;
  // Its usage is not asked for, and `in_use` is only about itself, not what stands on it.
  virtual StatusOr<WorkerRecord> Find(CallContext& call, std::string_view name) = 0;
  // Only this worker's, in the snapshotter's order; `with_usage` asks for each one's, too. An error
  // is none of them: what could not be asked about is not gone.
  virtual StatusOr<std::vector<WorkerRecord>> List(CallContext& call, bool with_usage) = 0;
  // Notes a use: now, and one more.
  virtual Status Touch(CallContext& call, std::string_view name) = 0;
  // Of what was committed with kUnsyncedLabel: the data is on the disk now. Parents first, so that
  // what is synced stands on what is synced.
  virtual Status MarkSynced(CallContext& call, std::string_view name) = 0;

  // While it lives, nobody of this worker prunes `name` or its parents. Ends with the process, too.
  // `name` need not be there yet: hold first, then look or commit. May outlive this object.
  // DeadlineExceeded: somebody is removing it and does not get done.
  class Hold {
   public:
    virtual ~Hold() = default;
  };
  virtual StatusOr<std::unique_ptr<Hold>> HoldSnapshot(std::string_view name) = 0;

  // What last_used is told by.
  [[nodiscard]] virtual Clock& clock() const = 0;
};

}  // namespace strata
