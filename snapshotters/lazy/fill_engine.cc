// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fill_engine.h"

#include <algorithm>
#include <utility>

#include "snapshotters/lazy/fill_plan.h"
#include "snapshotters/lazy/toc.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// BlobClient notices hosts that do not answer by itself; these end what it does not notice.
constexpr std::chrono::minutes kLeastDeadline{1};
constexpr std::chrono::minutes kUnwaitedDeadline{10};

FetchClass FetchClassOf(FillClass fill_class) {
  switch (fill_class) {
    case FillClass::kDemand:
      return FetchClass::kOnDemand;
    case FillClass::kReadAhead:
    case FillClass::kPrefetch:
      return FetchClass::kPrefetch;
    case FillClass::kBackground:
      return FetchClass::kBackground;
  }
  return FetchClass::kBackground;
}

void Count(std::atomic<uint64_t>& counter, uint64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}

}  // namespace

FillEngine::FillEngine(const Filler::Options& options, Filler::SpaceCallback need_space)
    : options_(options),
      schedule_(options, std::random_device()()),
      persister_(options.persist_interval, std::move(need_space), options.reserve),
      pool_(options.decode_threads),
      timer_([this] { RunTimer(); }) {}

void FillEngine::Stop() {
  FillWaiters waiters;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    waiters = schedule_.Stop();
    waiters.insert(waiters.begin(), released_.begin(), released_.end());
    released_.clear();
    timer_changed_.Signal();
  }
  pool_.Stop();
  timer_.join();
  Release(waiters);
  persister_.Stop();
}

void FillEngine::Know(const std::shared_ptr<LayerFill>& layer) {
  const MutexLock lock(mutex_);
  schedule_.Know(layer);
}

void FillEngine::LookAhead(const std::shared_ptr<LayerFill>& layer, const WantedRange& range,
                           bool waits, FillTime now) {
  const ReadAhead::Ask ask = layer->read_ahead.OnWant(range.offset, range.bytes, waits);
  if (ask.bytes > 0) {
    const LayerImage& image = layer->image();
    schedule_.Want(layer,
                   AbsentSpans(image.chunks(), image.extents(),
                               ChunksIn(image.chunks(), ask.offset, ask.bytes)),
                   FillClass::kReadAhead, nullptr, now);
  }
}

void FillEngine::Want(const std::shared_ptr<LayerFill>& layer, const WantedRange& range,
                      Filler::Callback callback) {
  Count(counters_.wants);
  const LayerImage& image = layer->image();
  const ChunkRange chunks = ChunksIn(image.chunks(), range.offset, range.bytes);
  bool waits = image.extents().FirstAbsent(chunks.first, chunks.end) != chunks.end;
  if (!waits) {
    std::exchange(callback, nullptr)(OkStatus(), nullptr);
    if (!layer->read_ahead.Watches(range.offset, range.bytes)) {
      return;
    }
  }
  Status answer;
  {
    const FillTime now = steady_clock::now();
    const MutexLock lock(mutex_);
    if (stopping_) {
      answer = MakeStatus(StatusCode::kCancelled, "the filler ends");
    } else {
      if (waits) {
        // Again: what became present since has left the schedule.
        const auto spans = AbsentSpans(image.chunks(), image.extents(), chunks);
        waits = !spans.empty();
        if (waits) {
          auto waiter = std::make_shared<FillWaiter>();
          waiter->range = range;
          waiter->callback = std::exchange(callback, nullptr);
          schedule_.Want(layer, spans, FillClass::kDemand, waiter, now);
        }
      }
      LookAhead(layer, range, waits, now);
    }
  }
  if (waits && answer.ok()) {
    Count(counters_.wants_absent);
  } else if (callback) {
    callback(answer, nullptr);
  }
  Pump();
}

void FillEngine::Walk(const std::shared_ptr<LayerFill>& layer, FillClass fill_class, uint32_t end) {
  {
    const MutexLock lock(mutex_);
    if (stopping_) {
      return;
    }
    layer->forgotten = false;
    schedule_.Walk(layer, fill_class, end);
  }
  Pump();
}

void FillEngine::Nudge() {
  {
    const MutexLock lock(mutex_);
    schedule_.Nudge(steady_clock::now());
    timer_changed_.Signal();
  }
  Pump();
}

void FillEngine::Forget(LayerFill& layer) {
  const MutexLock lock(mutex_);
  schedule_.Forget(layer);
}

void FillEngine::Pump() {
  std::vector<FillRequest> requests;
  const FillTime now = steady_clock::now();
  {
    const MutexLock lock(mutex_);
    if (stopping_) {
      return;
    }
    const uint64_t held = held_->load(std::memory_order_relaxed);
    while (auto request = schedule_.Next(now, held)) {
      requests.push_back(*std::move(request));
    }
    if (schedule_.NextTime() < timer_time_) {
      timer_changed_.Signal();
    }
  }
  for (FillRequest& request : requests) {
    Send(std::move(request), now);
  }
}

void FillEngine::Send(FillRequest request, FillTime now) {
  Count(counters_.requests);
  const FillTime deadline = request.fill_class == FillClass::kDemand
                                ? now + std::max<milliseconds>(options_.patience, kLeastDeadline)
                                : now + kUnwaitedDeadline;
  const uint64_t offset = request.offset;
  const uint64_t bytes = request.bytes;
  const FetchClass fetch_class = FetchClassOf(request.fill_class);
  const std::shared_ptr<LayerFill> layer = request.layer;
  layer->blob().FetchRange(offset, bytes, fetch_class, deadline,
                           std::make_shared<RangeReceiver>(shared_from_this(), std::move(request)));
}

void FillEngine::CountReceived(LayerFill& layer, uint64_t bytes) {
  Count(counters_.blob_bytes, bytes);
  layer.CountFetched(bytes);
}

bool FillEngine::IsWanted(const FillRequest& request, size_t first) {
  if (stopping_.load(std::memory_order_relaxed)) {
    return false;
  }
  if (!request.layer->forgotten.load(std::memory_order_relaxed)) {
    return true;
  }
  const MutexLock lock(mutex_);
  return std::any_of(request.fills.begin() + static_cast<ptrdiff_t>(first), request.fills.end(),
                     [](const auto& fill) { return FillSchedule::HasWaiters(*fill); });
}

void FillEngine::OnSpan(const std::shared_ptr<SpanFill>& fill) {
  const MutexLock lock(mutex_);
  if (!stopping_) {
    pool_.Push(fill->wanted, [this, fill](DecodeScratch& scratch) { Decode(fill, scratch); });
  }
}

void FillEngine::OnEnd(const FillRequest& request, size_t first, const Status& status) {
  {
    const FillTime now = steady_clock::now();
    const MutexLock lock(mutex_);
    if (stopping_) {
      return;
    }
    schedule_.EndRequest(request.fill_class);
    // It was our end, because nobody waited.
    const bool dropped = status.code() == StatusCode::kCancelled && request.layer->forgotten;
    for (size_t i = first; i < request.fills.size(); ++i) {
      const auto& fill = request.fills[i];
      FillWaiters released;
      if (dropped) {
        schedule_.Dropped(fill);
      } else if (status.code() == StatusCode::kDataLoss) {
        released = schedule_.Spoiled(fill, status);
      } else {
        released = schedule_.FetchFailed(fill, status, now);
      }
      released_.insert(released_.end(), released.begin(), released.end());
    }
    if (!released_.empty()) {
      timer_changed_.Signal();
    }
  }
  Pump();
}

void FillEngine::Decode(const std::shared_ptr<SpanFill>& fill, DecodeScratch& scratch) {
  const std::unique_ptr<uint8_t[]> compressed = std::move(fill->bytes);
  const TableSpan& span = fill->span;
  StoreResult result;
  // What follows the wanted bytes in the same member (headers of further files) is bounded, too.
  const uint64_t most = std::max(span.decoded_bytes, TocLimits().span_decoded_bytes);
  result.verified =
      scratch.decoder.Decode(span.codec, {compressed.get(), static_cast<size_t>(span.blob_bytes)},
                             span.decoded_bytes, most, scratch.buffer);
  const std::span<const uint8_t> decoded = scratch.buffer.bytes();
  if (result.verified.ok()) {
    fill->write_began = steady_clock::now();
    result = StoreSpan(fill->layer->image(), fill->index, decoded, options_.reserve);
  }
  Count(counters_.image_bytes, result.written_bytes);
  Count(counters_.mismatches, result.mismatches);
  if (result.written_bytes > 0 && result.written.ok()) {
    fill->layer->SetDiskFull(false);
  } else if (IsDiskFull(result.written)) {
    fill->layer->SetDiskFull(true);
    persister_.NeedSpace();
  }
  if (result.marked) {
    const auto& layer = fill->layer;
    if (layer->TakeCompletion()) {
      persister_.MarkComplete(layer->shared_image(), [layer] { layer->CallOnComplete(); });
    } else {
      persister_.MarkDirty(layer->shared_image());
    }
  }
  FillWaiters released;
  {
    const MutexLock lock(mutex_);
    if (stopping_) {
      return;
    }
    released = Settle(fill, result, decoded);
  }
  Release(released);
  Pump();
}

FillWaiters FillEngine::Settle(const std::shared_ptr<SpanFill>& fill, const StoreResult& result,
                               std::span<const uint8_t> decoded) {
  if (!result.verified.ok()) {
    return schedule_.Spoiled(fill, result.verified);
  }
  if (result.written.ok()) {
    Count(counters_.spans);
    return schedule_.Filled(*fill, steady_clock::now());
  }
  const bool held = IsDiskFull(result.written);
  if (held) {
    Hold(*fill, result, decoded);
  }
  return schedule_.NotWritten(fill, result.written, held, steady_clock::now());
}

void FillEngine::Hold(const SpanFill& fill, const StoreResult& result,
                      std::span<const uint8_t> decoded) {
  for (const auto& waiter : fill.waiters) {
    if (waiter->done || waiter->range.on_disk) {
      continue;
    }
    for (const uint32_t index : result.unwritten) {
      const TableChunk chunk = fill.layer->image().chunks().chunk(index);
      const WantedRange& range = waiter->range;
      const uint64_t begin = std::max(chunk.image_offset, range.offset);
      const uint64_t end = std::min(chunk.image_offset + chunk.bytes, range.offset + range.bytes);
      if (begin >= end) {
        continue;
      }
      if (waiter->held == nullptr) {
        waiter->held = std::make_shared<HeldRange>(held_);
      }
      const uint64_t from = chunk.inner_offset + (begin - chunk.image_offset);
      waiter->held->Add(
          begin, decoded.subspan(static_cast<size_t>(from), static_cast<size_t>(end - begin)));
    }
  }
}

void FillEngine::Release(const FillWaiters& waiters) {
  for (const auto& waiter : waiters) {
    std::shared_ptr<const HeldBytes> held;
    if (waiter->result.ok()) {
      held = std::move(waiter->held);
    }
    const Filler::Callback callback = std::move(waiter->callback);
    callback(waiter->result, std::move(held));
  }
}

void FillEngine::RunTimer() {
  while (true) {
    FillWaiters released;
    {
      const MutexLock lock(mutex_);
      while (!stopping_ && released_.empty()) {
        timer_time_ = schedule_.NextTime();
        if (timer_time_ <= steady_clock::now()) {
          break;
        }
        if (timer_time_ == FillTime::max()) {
          timer_changed_.Wait(mutex_);
        } else {
          (void)timer_changed_.WaitUntil(mutex_, timer_time_);  // looked at again either way
        }
      }
      timer_time_ = FillTime::max();
      if (stopping_) {
        return;
      }
      released = schedule_.Expire(steady_clock::now());
      released.insert(released.end(), released_.begin(), released_.end());
      released_.clear();
    }
    Release(released);
    Pump();
  }
}

Filler::Counters FillEngine::counters() const {
  const auto get = [](const std::atomic<uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  return {.wants = get(counters_.wants),
          .wants_absent = get(counters_.wants_absent),
          .spans = get(counters_.spans),
          .requests = get(counters_.requests),
          .blob_bytes = get(counters_.blob_bytes),
          .image_bytes = get(counters_.image_bytes),
          .mismatches = get(counters_.mismatches)};
}

}  // namespace strata
