// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/read_ahead.h"

#include <algorithm>

namespace strata {
namespace {

constexpr uint64_t kFirstWindow = uint64_t{2} << 20;
// Windows below grow fourfold: over a slow link each step costs the reader a round trip.
constexpr uint64_t kSmallWindow = uint64_t{16} << 20;
constexpr uint64_t kLeastStep = uint64_t{512} << 10;
// Readers in the kernel send several requests at once, which may overtake one another.
constexpr uint64_t kLeastSlack = uint64_t{8} << 10;
constexpr uint64_t kMostSlack = uint64_t{1} << 20;

uint64_t Plus(uint64_t offset, uint64_t bytes) {
  return offset + std::min(bytes, std::numeric_limits<uint64_t>::max() - offset);
}

}  // namespace

bool ReadAhead::Watches(uint64_t offset, uint64_t bytes) const {
  const uint64_t end = Plus(offset, bytes);
  return std::any_of(streams_.begin(), streams_.end(), [offset, end](const Stream& stream) {
    return end > stream.mark.load(std::memory_order_relaxed) &&
           offset < stream.mark_end.load(std::memory_order_relaxed);
  });
}

ReadAhead::Stream* ReadAhead::Find(uint64_t offset, uint64_t end, uint64_t slack) {
  for (Stream& stream : streams_) {
    if (stream.used == 0) {
      continue;
    }
    const uint64_t begin = stream.next - std::min(slack, stream.next);
    if (end > begin && offset >= begin && offset <= Plus(stream.ahead, slack)) {
      return &stream;
    }
  }
  return nullptr;
}

void ReadAhead::Begin(uint64_t end, uint64_t slack) {
  Stream& stream = *std::min_element(
      streams_.begin(), streams_.end(),
      [](const Stream& left, const Stream& right) { return left.used < right.used; });
  stream.next = end;
  stream.ahead = end;
  stream.window = 0;
  stream.grow_from = 0;
  stream.used = wants_;
  stream.mark.store(end, std::memory_order_relaxed);
  stream.mark_end.store(Plus(end, slack), std::memory_order_relaxed);
}

ReadAhead::Ask ReadAhead::Slide(Stream& stream, uint64_t slack) {
  const uint64_t step = std::max(stream.window / 8, std::min(stream.window, kLeastStep));
  const uint64_t from = std::max(stream.ahead, stream.next);
  const uint64_t to = Plus(stream.next, stream.window);
  Ask ask;
  if (to >= Plus(from, step)) {
    ask = {.offset = from, .bytes = to - from};
    stream.ahead = to;
  }
  stream.mark.store(stream.ahead - std::min(stream.ahead, stream.window) + step,
                    std::memory_order_relaxed);
  stream.mark_end.store(Plus(stream.ahead, slack), std::memory_order_relaxed);
  return ask;
}

ReadAhead::Ask ReadAhead::OnWant(uint64_t offset, uint64_t bytes, bool waits) {
  if (most_bytes_ == 0 || bytes == 0) {
    return {};
  }
  ++wants_;
  const uint64_t end = Plus(offset, bytes);
  const uint64_t slack = std::clamp(Plus(bytes, bytes), kLeastSlack, kMostSlack);
  Stream* const stream = Find(offset, end, slack);
  if (stream == nullptr) {
    if (waits) {
      Begin(end, slack);
    }
    return {};
  }
  stream->used = wants_;
  if (end <= stream->next) {
    return {};  // overtaken, or read again: says nothing about where the reader goes
  }
  stream->next = end;
  if (stream->window == 0) {
    stream->window = std::min(kFirstWindow, most_bytes_);
    stream->grow_from = end;
  } else if (waits && end > stream->grow_from && stream->window < most_bytes_) {
    stream->grow_from = std::max(stream->ahead, end);
    stream->window =
        std::min(most_bytes_, stream->window * (stream->window < kSmallWindow ? 4 : 2));
  }
  return Slide(*stream, slack);
}

}  // namespace strata
