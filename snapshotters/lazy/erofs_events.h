// SPDX-License-Identifier: Apache-2.0
//
// ErofsEvents: what becomes of the events of a fanotify group: each is taken into the journal, told
// to be of a layer, joined to the Filler when its range is absent, answered once, and forgotten, in
// that order. Lives as long as a callback of the Filler may come. Safe from any thread.
#pragma once

#include <absl/base/thread_annotations.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/lazy/erofs_files.h"
#include "snapshotters/lazy/erofs_presenter.h"
#include "snapshotters/lazy/event_journal.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/os/fanotify_group.h"

namespace strata {

class ErofsEvents : public std::enable_shared_from_this<ErofsEvents> {
 public:
  // `filler` must live until Close.
  ErofsEvents(FanotifyGroup group, std::unique_ptr<EventJournal> journal, Filler& filler)
      : group_(std::move(group)), journal_(std::move(journal)), filler_(filler) {}
  ErofsEvents(const ErofsEvents&) = delete;
  ErofsEvents& operator=(const ErofsEvents&) = delete;

  [[nodiscard]] const FanotifyGroup& group() const { return group_; }
  [[nodiscard]] ErofsFiles& files() { return files_; }
  [[nodiscard]] ErofsCounters counters() const;

  // Takes over what a predecessor has left in the journal: what it was about to answer is answered
  // now, the rest when Settle says so. To be called once, before the first TakeEvents.
  void TakeLeft();

  // Takes events and deals with them until Stop; the work of each event thread. Stop does not end a
  // read that blocks.
  void TakeEvents();
  void Stop();
  // No answer is given any more, and none is under way when this returns. What is not answered
  // stays in the journal. Event threads have ended.
  void Close();

  // --- layers

  // Events of the image are the layer's from now on. False: they are already.
  StatusOr<bool> Add(const std::shared_ptr<FillLayer>& layer);
  // Null: not known, or complete.
  [[nodiscard]] std::shared_ptr<FillLayer> Find(uint64_t number) const;
  [[nodiscard]] bool Knows(const InodeKey& inode) const;
  // Whatever comes is to be allowed: every byte is there. The layer is let go.
  void SetComplete(uint64_t number);
  // An image that has no layer here, and every byte.
  void AddComplete(const InodeKey& inode);
  void Remove(uint64_t number);

  struct Settlement {
    // Whether a layer that is not known here has every byte; for events that are left.
    std::function<bool(uint64_t number)> is_complete;
    // There are marked images of which nothing is known.
    bool has_unknown = false;
  };
  // All layers that there are have been added. Answers what is left, and from now on denies what is
  // of no layer.
  void Settle(const Settlement& settlement);

 private:
  struct Layer {
    uint64_t number = 0;
    std::shared_ptr<FillLayer> layer;  // null: complete
  };
  // An event that was taken.
  struct Taken {
    uint32_t slot = 0;
    FanotifyGroup::Event event;
    UniqueFd fd;
  };
  // Events that were left under one number. More than one: which of them an answer reaches is not
  // known, so all are answered when all are present.
  struct Left {
    UniqueFd occupied;  // so that no new event gets this number, if that could be had
    std::vector<EventJournal::Left> events;
    size_t wants = 0;  // that have not come back
    bool failed = false;
    bool cancelled = false;
    // New events with this number all the same: an answer would reach an older one.
    std::vector<Taken> behind;
  };
  struct Range {
    std::shared_ptr<FillLayer> layer;
    uint64_t offset = 0;
    uint64_t bytes = 0;
  };

  void Handle(Taken taken);
  [[nodiscard]] bool QueuesBehindLeft(Taken& taken);
  void HandleFirst(Taken taken);
  void Serve(Taken taken, const Layer& layer);
  static Range RangeOf(const std::shared_ptr<FillLayer>& layer, const FanotifyGroup::Event& event);
  void Finish(uint32_t slot, const Status& status);
  void Answer(Taken taken, bool allow);
  void Write(uint32_t slot, int number, bool allow);
  void Denied(std::string_view why);

  void ServeLeft(int number, const Settlement& settlement);
  [[nodiscard]] bool RangesOfLeft(const EventJournal::Left& event, const Settlement& settlement,
                                  std::vector<Range>& ranges) const;
  void FinishLeft(int number, const Status& status);
  void ReleaseLeft(int number);

  // Brackets what must not go on after Close. False: it has been called.
  bool Begin();
  void End();

  const FanotifyGroup group_;
  const std::unique_ptr<EventJournal> journal_;
  Filler& filler_;
  ErofsFiles files_;

  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> events_{0};
  std::atomic<uint64_t> waited_{0};
  std::atomic<uint64_t> denied_{0};
  std::atomic<uint64_t> inherited_{0};
  std::atomic<size_t> left_numbers_{0};  // so that the usual event need not look

  mutable Mutex mutex_;
  CondVar changed_;
  std::map<InodeKey, Layer> layers_ ABSL_GUARDED_BY(mutex_);
  bool settled_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Taken> parked_ ABSL_GUARDED_BY(mutex_);                    // of no layer yet
  std::unordered_map<uint32_t, Taken> waiting_ ABSL_GUARDED_BY(mutex_);  // by slot, for the Filler
  std::map<int, Left> left_ ABSL_GUARDED_BY(mutex_);                     // by number
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int answering_ ABSL_GUARDED_BY(mutex_) = 0;
  std::chrono::steady_clock::time_point last_log_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace strata
