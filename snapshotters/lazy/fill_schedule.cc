// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fill_schedule.h"

#include <algorithm>

namespace strata {
namespace {

using std::chrono::milliseconds;

// Between spans of small files lie their headers, which cost less than another request.
constexpr uint64_t kMostGap = uint64_t{4} << 10;
constexpr uint64_t kLeastReadAheadRequest = uint64_t{512} << 10;
// BlobClient has tried several times, with waits of its own, before it says so.
constexpr milliseconds kFirstRest{250};
constexpr milliseconds kMostRest{10'000};
constexpr int kLeastTries = 4;  // within the patience of a read
constexpr milliseconds kFirstPause{1'000};
constexpr milliseconds kMostPause{30'000};
// What is fetched for a full disk is fetched in vain, and nobody says when it is no longer full.
constexpr milliseconds kFullDiskPause{30'000};

bool MayPass(const Status& status) {
  constexpr std::array kPassing = {StatusCode::kUnavailable, StatusCode::kDeadlineExceeded,
                                   StatusCode::kResourceExhausted, StatusCode::kAborted};
  return std::find(kPassing.begin(), kPassing.end(), status.code()) != kPassing.end();
}

FillShare::Limits LimitsOf(const Filler::Options& options) {
  // A quarter of the requests is left to those who wait.
  const int lower = std::max(1, options.requests - options.requests / 4);
  return {
      .bytes = options.in_flight_bytes, .request_bytes = options.request_bytes, .requests = lower};
}

}  // namespace

FillSchedule::FillSchedule(const Filler::Options& options, uint32_t seed)
    : options_(options), share_(LimitsOf(options)), random_(seed) {}

void FillSchedule::Know(const std::shared_ptr<LayerFill>& layer) {
  layers_.erase(std::remove_if(layers_.begin(), layers_.end(),
                               [](const auto& known) { return known.expired(); }),
                layers_.end());
  layers_.push_back(layer);
}

void FillSchedule::Enqueue(const std::shared_ptr<SpanFill>& fill) {
  Queue& queue = QueueOf(fill->wanted);
  fill->stage = SpanFill::Stage::kQueued;
  fill->place = queue.insert(queue.end(), fill);
  if (fill->wanted == FillClass::kReadAhead) {
    read_ahead_queued_ += fill->span.blob_bytes;
  }
}

void FillSchedule::Unqueue(SpanFill& fill) {
  QueueOf(fill.wanted).erase(fill.place);
  if (fill.wanted == FillClass::kReadAhead) {
    read_ahead_queued_ -= fill.span.blob_bytes;
  }
}

void FillSchedule::Want(const std::shared_ptr<LayerFill>& layer, const std::vector<uint32_t>& spans,
                        FillClass fill_class, const std::shared_ptr<FillWaiter>& waiter,
                        FillTime now) {
  if (waiter == nullptr && (layer->forgotten || IsHeldUp(*layer, now))) {
    return;
  }
  for (const uint32_t index : spans) {
    std::shared_ptr<SpanFill>& fill = fills_[{layer.get(), index}];
    if (fill == nullptr) {
      fill = std::make_shared<SpanFill>();
      fill->layer = layer;
      fill->index = index;
      fill->span = layer->image().chunks().span(index);
      fill->wanted = fill_class;
      Enqueue(fill);
    } else if (fill_class < fill->wanted) {
      const std::shared_ptr<SpanFill> moved = fill;
      const bool queued = fill->stage == SpanFill::Stage::kQueued;
      if (queued) {
        Unqueue(*moved);
      }
      moved->wanted = fill_class;
      if (queued) {
        Enqueue(moved);
      }
    }
    if (waiter != nullptr) {
      fill->waiters.push_back(waiter);
    }
    if (waiter != nullptr && !waiter->range.on_disk && fill->stage == SpanFill::Stage::kResting &&
        fill->for_disk) {
      // This one does not need the disk.
      resting_.erase(fill->rest);
      Enqueue(fill);
    }
  }
  if (waiter != nullptr) {
    waiter->spans_left = spans.size();
    waiter->deadline = options_.patience.count() == 0 ? FillTime::max() : now + options_.patience;
    waiter->place = waiting_.insert(waiting_.end(), waiter);
  }
}

void FillSchedule::Walk(const std::shared_ptr<LayerFill>& layer, FillClass fill_class,
                        uint32_t end) {
  FillWalk& walk = WalkOf(*layer, fill_class);
  walk.end = std::max(walk.end, end);
  layer->progress.given_up.clear();
  walk.cursor = 0;
  if (!walk.listed && walk.end > 0) {
    walk.listed = true;
    WalksOf(fill_class).push_back(layer);
  }
}

void FillSchedule::Forget(LayerFill& layer) {
  layer.forgotten = true;
  for (const FillClass fill_class : {FillClass::kPrefetch, FillClass::kBackground}) {
    WalkOf(layer, fill_class) = {};
    WalksOf(fill_class).remove_if([&layer](const auto& one) { return one.get() == &layer; });
  }
  std::vector<std::shared_ptr<SpanFill>> unwanted;
  for (auto place = fills_.lower_bound({&layer, 0});
       place != fills_.end() && place->first.first == &layer; ++place) {
    if (place->second->stage == SpanFill::Stage::kQueued && !HasWaiters(*place->second)) {
      unwanted.push_back(place->second);
    }
  }
  for (const auto& fill : unwanted) {
    Unqueue(*fill);
    Remove(*fill, /*again=*/false);
  }
}

void FillSchedule::Nudge(FillTime now) {
  for (const auto& known : layers_) {
    const auto layer = known.lock();
    if (layer == nullptr) {
      continue;
    }
    layer->progress.pause = milliseconds(0);
    layer->progress.pause_until = {};
    for (const uint32_t span : std::exchange(layer->progress.given_up, {})) {
      Rewind(*layer, span);
    }
  }
  const auto resting = std::exchange(resting_, {});
  for (const auto& [due, fill] : resting) {
    fill->rest = resting_.emplace(now, fill);
  }
}

bool FillSchedule::HasWaiters(const SpanFill& fill) {
  return std::any_of(fill.waiters.begin(), fill.waiters.end(),
                     [](const auto& waiter) { return !waiter->done; });
}

std::optional<FillRequest> FillSchedule::Next(FillTime now, uint64_t held) {
  if (auto request = Build(FillClass::kDemand, now, held)) {
    return request;
  }
  constexpr std::array kLower = {FillClass::kReadAhead, FillClass::kPrefetch,
                                 FillClass::kBackground};
  for (const FillClass fill_class : kLower) {
    if (share_.idle(fill_class)) {
      if (auto request = Build(fill_class, now, held)) {
        return request;
      }
    }
  }
  for (const FillClass fill_class : kLower) {
    if (auto request = Build(fill_class, now, held)) {
      return request;
    }
  }
  return std::nullopt;
}

std::optional<FillRequest> FillSchedule::Build(FillClass fill_class, FillTime now, uint64_t held) {
  const uint64_t room = share_.Room(fill_class, held);
  if (room == 0) {
    return std::nullopt;
  }
  if (!QueueOf(fill_class).empty()) {
    return FromQueue(fill_class, room);
  }
  if (fill_class == FillClass::kDemand || fill_class == FillClass::kReadAhead) {
    return std::nullopt;
  }
  // Each layer in turn.
  Walks& walks = WalksOf(fill_class);
  for (size_t left = walks.size(); left > 0; --left) {
    const std::shared_ptr<LayerFill> layer = walks.front();
    if (!IsHeldUp(*layer, now)) {
      if (auto request = FromWalk(layer, fill_class, room)) {
        walks.splice(walks.end(), walks, walks.begin());
        return request;
      }
      WalkOf(*layer, fill_class).listed = false;
      walks.pop_front();
      continue;
    }
    walks.splice(walks.end(), walks, walks.begin());
  }
  return std::nullopt;
}

FillRequest FillSchedule::FromQueue(FillClass fill_class, uint64_t room) {
  if (fill_class == FillClass::kReadAhead) {
    // Several at once fill a link with latency; what is due first comes first.
    room = std::min(room, std::max(kLeastReadAheadRequest, read_ahead_queued_ / 4));
  }
  // A reader gets what it wants and not a byte more.
  FetchGroup group(room, fill_class == FillClass::kDemand ? 0 : kMostGap);
  std::vector<std::shared_ptr<SpanFill>> fills;
  const std::shared_ptr<SpanFill> head = QueueOf(fill_class).front();
  for (auto place = fills_.find({head->layer.get(), head->index});
       place != fills_.end() && place->first.first == head->layer.get() &&
       place->first.second == head->index + fills.size();
       ++place) {
    const std::shared_ptr<SpanFill>& fill = place->second;
    if (fill->stage != SpanFill::Stage::kQueued || fill->wanted != fill_class ||
        !group.Add(fill->span)) {
      break;
    }
    Unqueue(*fill);
    fills.push_back(fill);
  }
  return Begin(fill_class, group, std::move(fills));
}

std::optional<FillRequest> FillSchedule::FromWalk(const std::shared_ptr<LayerFill>& layer,
                                                  FillClass fill_class, uint64_t room) {
  FillWalk& walk = WalkOf(*layer, fill_class);
  const ChunkTable& table = layer->image().chunks();
  FetchGroup group(room, kMostGap);
  std::vector<std::shared_ptr<SpanFill>> fills;
  for (; walk.cursor < walk.end; ++walk.cursor) {
    const uint32_t index = walk.cursor;
    if (fills_.count({layer.get(), index}) > 0 || layer->progress.given_up.count(index) > 0 ||
        !IsSpanAbsent(table, layer->image().extents(), index)) {
      if (fills.empty()) {
        continue;
      }
      break;
    }
    if (!group.Add(table.span(index))) {
      break;
    }
    auto fill = std::make_shared<SpanFill>();
    fill->layer = layer;
    fill->index = index;
    fill->span = table.span(index);
    fill->wanted = fill_class;
    fills_[{layer.get(), index}] = fill;
    fills.push_back(std::move(fill));
  }
  if (fills.empty()) {
    return std::nullopt;
  }
  return Begin(fill_class, group, std::move(fills));
}

FillRequest FillSchedule::Begin(FillClass fill_class, const FetchGroup& group,
                                std::vector<std::shared_ptr<SpanFill>> fills) {
  for (const auto& fill : fills) {
    fill->stage = SpanFill::Stage::kUnderWay;
  }
  share_.Start(fill_class, group.span_bytes());
  std::shared_ptr<LayerFill> layer = fills.front()->layer;
  return {.layer = std::move(layer),
          .fill_class = fill_class,
          .offset = group.offset(),
          .bytes = group.bytes(),
          .fills = std::move(fills)};
}

void FillSchedule::Rewind(LayerFill& layer, uint32_t span) {
  if (layer.forgotten) {
    return;
  }
  for (const FillClass fill_class : {FillClass::kPrefetch, FillClass::kBackground}) {
    FillWalk& walk = WalkOf(layer, fill_class);
    if (span >= walk.end) {
      continue;
    }
    walk.cursor = std::min(walk.cursor, span);
    if (!walk.listed) {
      for (const auto& known : layers_) {
        if (auto shared = known.lock(); shared.get() == &layer) {
          walk.listed = true;
          WalksOf(fill_class).push_back(std::move(shared));
        }
      }
    }
  }
}

void FillSchedule::Remove(SpanFill& fill, bool again) {
  const std::shared_ptr<LayerFill> layer = fill.layer;
  const uint32_t index = fill.index;
  fills_.erase({layer.get(), index});  // which may be the last that holds `fill`
  if (again) {
    Rewind(*layer, index);
  }
}

void FillSchedule::Done(FillWaiter& waiter, Status result) {
  waiter.done = true;
  waiter.result = std::move(result);
  waiting_.erase(waiter.place);
}

FillWaiters FillSchedule::GiveUp(SpanFill& fill, const Status& status, bool again) {
  FillWaiters released;
  for (const auto& waiter : fill.waiters) {
    if (!waiter->done) {
      released.push_back(waiter);
      Done(*waiter, status);
    }
  }
  Remove(fill, again);
  return released;
}

FillWaiters FillSchedule::Filled(SpanFill& fill, FillTime now) {
  share_.Release(fill.span.blob_bytes);
  FillProgress& progress = fill.layer->progress;
  progress.pause = milliseconds(0);
  progress.pause_until = {};
  progress.last_written = now;
  progress.given_up.erase(fill.index);
  FillWaiters released;
  for (const auto& waiter : fill.waiters) {
    if (!waiter->done && --waiter->spans_left == 0) {
      released.push_back(waiter);
      Done(*waiter, OkStatus());
    }
  }
  Remove(fill, /*again=*/false);
  return released;
}

void FillSchedule::Pause(LayerFill& layer, FillTime now) {
  FillProgress& progress = layer.progress;
  if (progress.pause_until > now) {
    return;  // several requests fail together
  }
  progress.pause = std::clamp(progress.pause * 2, kFirstPause, kMostPause);
  std::uniform_int_distribution<milliseconds::rep> jitter(0, progress.pause.count() / 2);
  progress.pause_until = now + progress.pause - milliseconds(jitter(random_));
}

FillWaiters FillSchedule::FetchFailed(const std::shared_ptr<SpanFill>& fill, const Status& status,
                                      FillTime now) {
  share_.Release(fill->span.blob_bytes);
  const bool waited_for = HasWaiters(*fill);
  const bool again = waited_for && MayPass(status) && options_.patience.count() > 0;
  const Status described = fill->layer->Describe(status, fill->index);
  fill->layer->NoteError(described, /*given_up=*/waited_for && !again);
  Pause(*fill->layer, now);
  if (!again) {
    return GiveUp(*fill, described, /*again=*/true);
  }
  fill->for_disk = false;
  Rest(fill, described, now);
  return {};
}

void FillSchedule::Rest(const std::shared_ptr<SpanFill>& fill, const Status& reason, FillTime now) {
  for (const auto& waiter : fill->waiters) {
    waiter->last_error = reason;
  }
  // Whoever comes while it rests is to see some tries within his own patience.
  const milliseconds longest =
      std::clamp(options_.patience / kLeastTries, milliseconds(1), kMostRest);
  const milliseconds most =
      std::min(longest, kFirstRest * (int64_t{1} << std::min(fill->attempts, 10)));
  ++fill->attempts;
  if (now != rest_begin_) {
    std::uniform_int_distribution<milliseconds::rep> jitter(1, most.count());
    rest_begin_ = now;
    rest_end_ = now + milliseconds(jitter(random_));
  }
  fill->stage = SpanFill::Stage::kResting;
  fill->rest = resting_.emplace(rest_end_, fill);
}

FillWaiters FillSchedule::Spoiled(const std::shared_ptr<SpanFill>& fill, const Status& status) {
  share_.Release(fill->span.blob_bytes);
  const Status described =
      fill->layer->Describe(Annotate(status, "bytes from '" + fill->host + "'"), fill->index);
  if (!fill->spoiled) {
    fill->spoiled = true;
    fill->layer->NoteError(described, /*given_up=*/false);
    Enqueue(fill);
    return {};
  }
  fill->layer->NoteError(described, /*given_up=*/true);
  fill->layer->progress.given_up.insert(fill->index);
  return GiveUp(*fill, described, /*again=*/false);
}

FillWaiters FillSchedule::NotWritten(const std::shared_ptr<SpanFill>& fill, const Status& status,
                                     bool held, FillTime now) {
  share_.Release(fill->span.blob_bytes);
  const Status described = fill->layer->Describe(status, fill->index);
  // Unless another one was written meanwhile: then there is room, and it may be the last to say so.
  if (FillProgress& progress = fill->layer->progress; progress.last_written < fill->write_began) {
    progress.pause_until = now + kFullDiskPause;
  }
  const auto stays = [](const auto& waiter) { return !waiter->done && waiter->range.on_disk; };
  const bool needs_disk = std::any_of(fill->waiters.begin(), fill->waiters.end(), stays);
  const bool again = held && needs_disk && options_.patience.count() > 0;
  fill->layer->NoteError(described, /*given_up=*/!held || (needs_disk && !again));
  if (!held) {
    return GiveUp(*fill, described, /*again=*/true);
  }
  FillWaiters released;
  FillWaiters rest;
  for (const auto& waiter : fill->waiters) {
    if (stays(waiter)) {
      rest.push_back(waiter);
    } else if (!waiter->done && --waiter->spans_left == 0) {
      released.push_back(waiter);
      Done(*waiter, OkStatus());
    }
  }
  fill->waiters = std::move(rest);
  if (again) {
    fill->for_disk = true;
    Rest(fill, described, now);
    return released;
  }
  const FillWaiters given_up = GiveUp(*fill, described, /*again=*/true);
  released.insert(released.end(), given_up.begin(), given_up.end());
  return released;
}

void FillSchedule::Dropped(const std::shared_ptr<SpanFill>& fill) {
  share_.Release(fill->span.blob_bytes);
  if (HasWaiters(*fill)) {
    Enqueue(fill);
  } else {
    Remove(*fill, /*again=*/true);
  }
}

FillWaiters FillSchedule::Expire(FillTime now) {
  while (!resting_.empty() && resting_.begin()->first <= now) {
    const std::shared_ptr<SpanFill> fill = resting_.begin()->second;
    resting_.erase(resting_.begin());
    if (HasWaiters(*fill)) {
      Enqueue(fill);
    } else {
      Remove(*fill, /*again=*/true);
    }
  }
  for (const Walks* walks : {&prefetches_, &backgrounds_}) {
    for (const auto& layer : *walks) {
      if (layer->progress.pause_until <= now) {
        layer->progress.pause_until = {};
      }
    }
  }
  FillWaiters released;
  while (!waiting_.empty() && waiting_.front()->deadline <= now) {
    const std::shared_ptr<FillWaiter> waiter = waiting_.front();
    released.push_back(waiter);
    Done(*waiter, !waiter->last_error.ok()
                      ? waiter->last_error
                      : MakeStatus(StatusCode::kDeadlineExceeded,
                                   "fetch: nothing came within the time for a read"));
  }
  return released;
}

FillTime FillSchedule::NextTime() const {
  FillTime next = FillTime::max();
  if (!resting_.empty()) {
    next = std::min(next, resting_.begin()->first);
  }
  if (!waiting_.empty()) {
    next = std::min(next, waiting_.front()->deadline);
  }
  for (const Walks* walks : {&prefetches_, &backgrounds_}) {
    for (const auto& layer : *walks) {
      if (layer->progress.pause_until != FillTime()) {
        next = std::min(next, layer->progress.pause_until);
      }
    }
  }
  return next;
}

FillWaiters FillSchedule::Stop() {
  FillWaiters released(waiting_.begin(), waiting_.end());
  for (const auto& waiter : released) {
    Done(*waiter, MakeStatus(StatusCode::kCancelled, "the filler ends"));
  }
  fills_.clear();
  resting_.clear();
  for (Queue& queue : queues_) {
    queue.clear();
  }
  prefetches_.clear();
  backgrounds_.clear();
  return released;
}

}  // namespace strata
