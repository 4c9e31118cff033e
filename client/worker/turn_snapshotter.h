// SPDX-License-Identifier: Apache-2.0
//
// TurnSnapshotter: a snapshotter in this process whose root other processes of the worker use, too.
// A root belongs to one process at a time (StateRoot), and a run may last for days: so it is open
// only while calls are made, and goes to whoever waits for it between two calls. Safe from any
// thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "client/file_lock.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/core/snapshotter.h"

namespace strata {

class TurnSnapshotter final : public Snapshotter {
 public:
  struct Options {
    std::string directory;  // of the files by which processes take turns
    // How long a call waits for its turn: then DeadlineExceeded.
    std::chrono::milliseconds patience{60'000};
    // Closed after so long without a call, also when nobody waits.
    std::chrono::milliseconds idle{200};
    std::function<StatusOr<std::unique_ptr<Snapshotter>>()> open;
  };

  // Nothing is opened before the first call.
  static StatusOr<std::unique_ptr<TurnSnapshotter>> Create(Options options);
  ~TurnSnapshotter() override;

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
  // All rows at once: a cursor that is held would keep the root from others.
  StatusOr<std::unique_ptr<SnapshotCursor>> List(CallContext& call,
                                                 const std::vector<std::string>& filters) override;
  Status Cleanup(CallContext& call) override;

 private:
  // One call's use of the snapshotter.
  class Use;

  TurnSnapshotter(Options options, UniqueFd directory);
  Status Begin(CallContext& call) ABSL_LOCKS_EXCLUDED(mutex_);
  void End() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits for the turn and opens.
  Status TakeTurn(CallContext& call, bool pause_first) ABSL_LOCKS_EXCLUDED(mutex_);
  void Watch() ABSL_LOCKS_EXCLUDED(mutex_);
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  const UniqueFd directory_;

  Mutex mutex_;
  CondVar changed_;
  // By whoever is in TakeTurn or Close, which is one at a time; read by users in between.
  std::optional<FileLock> turn_;
  std::unique_ptr<Snapshotter> snapshotter_;
  enum class State { kClosed, kOpening, kOpen, kClosing };
  State state_ ABSL_GUARDED_BY(mutex_) = State::kClosed;
  int users_ ABSL_GUARDED_BY(mutex_) = 0;
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;  // by another process: no new users
  bool gave_way_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::chrono::steady_clock::time_point last_use_ ABSL_GUARDED_BY(mutex_);

  std::thread watcher_;  // last: it uses all of the above
};

}  // namespace strata
