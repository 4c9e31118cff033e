// SPDX-License-Identifier: Apache-2.0
#include "client/worker/turn_snapshotter.h"

#include <fcntl.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPoll{10};
// Whoever gave way waits so long before it asks again: longer than the others' poll.
constexpr milliseconds kGiveWay{25};
constexpr const char* kTurn = "turn";
constexpr const char* kWanted = "turn.wanted";

class RowCursor final : public SnapshotCursor {
 public:
  explicit RowCursor(std::vector<SnapshotInfo> rows) : rows_(std::move(rows)) {}

  StatusOr<std::vector<SnapshotInfo>> Next() override {
    const size_t end = std::min(rows_.size(), next_ + kListPageSize);
    std::vector<SnapshotInfo> page(rows_.begin() + static_cast<std::ptrdiff_t>(next_),
                                   rows_.begin() + static_cast<std::ptrdiff_t>(end));
    next_ = end;
    return page;
  }

 private:
  const std::vector<SnapshotInfo> rows_;
  size_t next_ = 0;
};

}  // namespace

class TurnSnapshotter::Use {
 public:
  explicit Use(TurnSnapshotter& owner, CallContext& call)
      : owner_(owner), status_(owner.Begin(call)) {}
  ~Use() {
    if (status_.ok()) {
      owner_.End();
    }
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  [[nodiscard]] const Status& status() const { return status_; }
  Snapshotter& operator*() { return *owner_.snapshotter_; }

 private:
  TurnSnapshotter& owner_;
  const Status status_;
};

StatusOr<std::unique_ptr<TurnSnapshotter>> TurnSnapshotter::Create(Options options) {
  STRATA_ASSIGN_OR_RETURN(UniqueFd directory, OpenFile(options.directory, O_RDONLY | O_DIRECTORY));
  return std::unique_ptr<TurnSnapshotter>(
      new TurnSnapshotter(std::move(options), std::move(directory)));
}

TurnSnapshotter::TurnSnapshotter(Options options, UniqueFd directory)
    : options_(std::move(options)), directory_(std::move(directory)) {
  watcher_ = std::thread([this] { Watch(); });
}

TurnSnapshotter::~TurnSnapshotter() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    changed_.SignalAll();
  }
  watcher_.join();
  snapshotter_.reset();
  turn_.reset();
}

Status TurnSnapshotter::TakeTurn(CallContext& call, bool pause_first) {
  const auto deadline = steady_clock::now() + options_.patience;
  if (pause_first) {
    std::this_thread::sleep_for(kGiveWay);
  }
  std::optional<FileLock> wanted;
  while (true) {
    STRATA_ASSIGN_OR_RETURN(turn_,
                            FileLock::Try(directory_.get(), kTurn, FileLock::Mode::kExclusive));
    if (turn_.has_value()) {
      break;
    }
    if (!wanted.has_value()) {
      STRATA_ASSIGN_OR_RETURN(wanted,
                              FileLock::Try(directory_.get(), kWanted, FileLock::Mode::kShared));
    }
    STRATA_RETURN_IF_ERROR(call.Check());
    if (steady_clock::now() >= deadline) {
      return MakeStatus(StatusCode::kDeadlineExceeded,
                        "another process of this worker has kept the snapshots in '" +
                            options_.directory + "' for " +
                            std::to_string(options_.patience.count() / 1000) +
                            " s (--snapshotter-timeout)");
    }
    std::this_thread::sleep_for(kPoll);
  }
  auto opened = options_.open();
  if (!opened.ok()) {
    turn_.reset();
    return opened.status();
  }
  snapshotter_ = *std::move(opened);
  return OkStatus();
}

Status TurnSnapshotter::Begin(CallContext& call) {
  bool pause_first = false;
  {
    const MutexLock lock(mutex_);
    const auto deadline = steady_clock::now() + options_.patience;
    while (state_ == State::kOpening || state_ == State::kClosing ||
           (state_ == State::kOpen && wanted_)) {
      STRATA_RETURN_IF_ERROR(call.Check());
      if (steady_clock::now() >= deadline) {
        return MakeStatus(StatusCode::kDeadlineExceeded,
                          "a call on the snapshots in '" + options_.directory +
                              "' does not come to its end (--snapshotter-timeout)");
      }
      (void)changed_.WaitUntil(mutex_, steady_clock::now() + kPoll);
    }
    if (state_ == State::kOpen) {
      ++users_;
      return OkStatus();
    }
    state_ = State::kOpening;
    pause_first = std::exchange(gave_way_, false);
  }
  Status status = TakeTurn(call, pause_first);
  const MutexLock lock(mutex_);
  state_ = status.ok() ? State::kOpen : State::kClosed;
  users_ += status.ok() ? 1 : 0;
  changed_.SignalAll();
  return status;
}

void TurnSnapshotter::End() {
  const MutexLock lock(mutex_);
  --users_;
  last_use_ = steady_clock::now();
  changed_.SignalAll();
}

void TurnSnapshotter::Close() {
  snapshotter_.reset();
  turn_.reset();
  const MutexLock lock(mutex_);
  state_ = State::kClosed;
  gave_way_ = std::exchange(wanted_, false);
  changed_.SignalAll();
}

void TurnSnapshotter::Watch() {
  while (true) {
    {
      const MutexLock lock(mutex_);
      while (!stop_ && state_ != State::kOpen) {
        changed_.Wait(mutex_);
      }
      const auto next = steady_clock::now() + kPoll;
      while (!stop_ && !changed_.WaitUntil(mutex_, next)) {
      }
      if (stop_) {
        return;
      }
    }
    // An error is no answer: then the root goes when it has been idle for long enough.
    const auto wanted = FileLock::IsLocked(directory_.get(), kWanted);
    bool close = false;
    {
      const MutexLock lock(mutex_);
      wanted_ = wanted_ || (wanted.ok() && *wanted);
      close = state_ == State::kOpen && users_ == 0 &&
              (wanted_ || steady_clock::now() - last_use_ >= options_.idle);
      if (close) {
        state_ = State::kClosing;
      }
    }
    if (close) {
      Close();
    }
  }
}

StatusOr<SnapshotInfo> TurnSnapshotter::Stat(CallContext& call, std::string_view name) {
  Use use(*this, call);
  STRATA_RETURN_IF_ERROR(use.status());
  return (*use).Stat(call, name);
}

StatusOr<SnapshotInfo> TurnSnapshotter::Update(CallContext& call, const SnapshotInfo& info,
                                               const std::vector<std::string>& mask) {
  Use use(*this, call);
  STRATA_RETURN_IF_ERROR(use.status());
  return (*use).Update(call, info, mask);
}

StatusOr<Usage> TurnSnapshotter::GetUsage(CallContext& call, std::string_view key) {
  Use use(*this, call);
  STRATA_RETURN_IF_ERROR(use.status());
  return (*use).GetUsage(call, key);
}

StatusOr<std::vector<Mount>> TurnSnapshotter::Mounts(CallContext& call, std::string_view key) {
  Use use(*this, call);
  STRATA_RETURN_IF_ERROR(use.status());
  return (*use).Mounts(call, key);
}

StatusOr<std::vector<Mount>> TurnSnapshotter::Prepare(CallContext& call, std::string_view key,
                                                      std::string_view parent,
                                                      const Labels& labels) {
  Use use(*this, call);
  STRATA_RETURN_IF_ERROR(use.status());
  return (*use).Prepare(call, key, parent, labels);
}

StatusOr<std::vector<Mount>> TurnSnapshotter::View(CallContext& call, std::string_view key,
                                                   std::string_view parent, const Labels& labels) {
  Use use(*this, call);
  STRATA_RETURN_IF_ERROR(use.status());
  return (*use).View(call, key, parent, labels);
}

Status TurnSnapshotter::Commit(CallContext& call, std::string_view name, std::string_view key,
                               const CommitOptions& options) {
  Use use(*this, call);
  STRATA_RETURN_IF_ERROR(use.status());
  return (*use).Commit(call, name, key, options);
}

Status TurnSnapshotter::Remove(CallContext& call, std::string_view key) {
  Use use(*this, call);
  STRATA_RETURN_IF_ERROR(use.status());
  return (*use).Remove(call, key);
}

StatusOr<std::unique_ptr<SnapshotCursor>> TurnSnapshotter::List(
    CallContext& call, const std::vector<std::string>& filters) {
  Use use(*this, call);
  STRATA_RETURN_IF_ERROR(use.status());
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<SnapshotCursor> cursor, (*use).List(call, filters));
  std::vector<SnapshotInfo> rows;
  while (true) {
    STRATA_ASSIGN_OR_RETURN(std::vector<SnapshotInfo> page, cursor->Next());
    if (page.empty()) {
      return std::make_unique<RowCursor>(std::move(rows));
    }
    std::move(page.begin(), page.end(), std::back_inserter(rows));
  }
}

Status TurnSnapshotter::Cleanup(CallContext& call) {
  Use use(*this, call);
  STRATA_RETURN_IF_ERROR(use.status());
  return (*use).Cleanup(call);
}

}  // namespace strata
