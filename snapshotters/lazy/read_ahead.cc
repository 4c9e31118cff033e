// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/read_ahead.h"

#include <algorithm>

namespace strata {
namespace {

constexpr uint64_t kFirstWindow = uint64_t{2} << 20;
// For one that began with a jump: it may be chance.
constexpr uint64_t kFirstWindowOfJumps = uint64_t{1} << 20;
// Windows below grow fourfold: over a slow link each step costs the reader a round trip.
constexpr uint64_t kSmallWindow = uint64_t{16} << 20;
constexpr uint64_t kLeastStep = uint64_t{512} << 10;
// Readers in the kernel send several requests at once, which may overtake one another, and page
// faults leave out 64 to 128 KiB at a time. But those who read here and there, and want nothing
// else, ask for less than kLeastOfJumps.
constexpr uint64_t kSlack = uint64_t{256} << 10;
constexpr uint64_t kLeastOfJumps = uint64_t{16} << 10;
// What lies so close to the last want is read in order: padding to a block, a small file between.
constexpr uint64_t kLeastGap = uint64_t{8} << 10;
// A stream goes on if it is one of those that were heard of in so many wants.
constexpr uint64_t kRecentWants = 256;

uint64_t Plus(uint64_t offset, uint64_t bytes) {
  return offset + std::min(bytes, std::numeric_limits<uint64_t>::max() - offset);
}

}  // namespace

bool ReadAhead::Watches(uint64_t offset, uint64_t bytes) const {
  const uint64_t end = Plus(offset, bytes);
  return std::any_of(marks_.begin(), marks_.end(), [offset, end](const Mark& mark) {
    return end > mark.begin.load(std::memory_order_relaxed) &&
           offset < mark.end.load(std::memory_order_relaxed);
  });
}

void ReadAhead::SetMark(const Stream& stream, uint64_t begin) {
  Mark& mark = marks_[static_cast<size_t>(&stream - streams_.data())];
  mark.begin.store(begin, std::memory_order_relaxed);
  mark.end.store(Plus(stream.ahead, kSlack), std::memory_order_relaxed);
}

ReadAhead::Stream* ReadAhead::Find(uint64_t offset, uint64_t end) {
  Stream* found = nullptr;
  for (Stream& stream : streams_) {
    const bool may_jump = stream.window > 0 || end - offset >= kLeastOfJumps;
    const uint64_t slack = may_jump ? kSlack : kLeastGap;
    const uint64_t begin = stream.next - std::min(slack, stream.next);
    const bool near =
        stream.used != 0 && end > begin && offset >= begin && offset <= Plus(stream.ahead, slack);
    // The one that it goes on from, rather than one that only came by.
    if (near && (found == nullptr || (stream.next <= offset && stream.next > found->next))) {
      found = &stream;
    }
  }
  return found;
}

ReadAhead::Stream& ReadAhead::Oldest() {
  const auto is_candidate = [](const Stream& stream) {
    return stream.used != 0 && stream.window == 0;
  };
  const bool many = std::count_if(streams_.begin(), streams_.end(), is_candidate) >=
                    static_cast<ptrdiff_t>(kCandidates);
  // Scattered reads must not push out the readers that go on.
  const auto goes_first = [&](const Stream& left, const Stream& right) {
    const bool taken = left.used != 0 && right.used != 0;
    if (taken && many && is_candidate(left) != is_candidate(right)) {
      return is_candidate(left);
    }
    return left.used < right.used;
  };
  return *std::min_element(streams_.begin(), streams_.end(), goes_first);
}

void ReadAhead::Begin(uint64_t end) {
  Stream& stream = Oldest();
  stream = {.next = end, .ahead = end, .used = wants_};
  SetMark(stream, end);
}

uint64_t ReadAhead::Share() const {
  const auto going_on = std::count_if(streams_.begin(), streams_.end(), [this](const auto& stream) {
    return stream.window > 0 && wants_ - stream.used < kRecentWants;
  });
  return most_bytes_ / static_cast<uint64_t>(std::max<ptrdiff_t>(1, going_on));
}

ReadAhead::Ask ReadAhead::Slide(Stream& stream) {
  const uint64_t window = std::min(stream.window, Share());
  const uint64_t step = std::max(window / 8, std::min(window, kLeastStep));
  const uint64_t from = std::max(stream.ahead, stream.next);
  const uint64_t to = Plus(stream.next, window);
  Ask ask;
  if (to >= Plus(from, step)) {
    ask = {.offset = from, .bytes = to - from};
    stream.ahead = to;
  }
  SetMark(stream, stream.ahead - std::min(stream.ahead, window) + step);
  return ask;
}

ReadAhead::Ask ReadAhead::OnWant(uint64_t offset, uint64_t bytes, bool waits) {
  if (most_bytes_ == 0 || bytes == 0) {
    return {};
  }
  ++wants_;
  const uint64_t end = Plus(offset, bytes);
  Stream* const stream = Find(offset, end);
  if (stream == nullptr) {
    if (waits) {
      Begin(end);
    }
    return {};
  }
  stream->used = wants_;
  if (end <= stream->next) {
    return {};  // overtaken, or read again: says nothing about where the reader goes
  }
  const bool jumps = offset > Plus(stream->next, std::max(kLeastGap, Plus(bytes, bytes)));
  stream->next = end;
  if (stream->window == 0) {
    stream->window = std::min(jumps ? kFirstWindowOfJumps : kFirstWindow, most_bytes_);
    stream->grow_from = end;
  } else if (waits && end > stream->grow_from && stream->window < Share()) {
    stream->grow_from = std::max(stream->ahead, end);
    stream->window =
        std::min(most_bytes_, stream->window * (stream->window < kSmallWindow ? 4 : 2));
  }
  return Slide(*stream);
}

}  // namespace strata
