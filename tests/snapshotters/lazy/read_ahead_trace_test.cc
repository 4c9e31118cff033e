// SPDX-License-Identifier: Apache-2.0
//
// ReadAhead against what the kernel asks for when programs read files of an EROFS mount: events of
// 16 KiB that grow to 128 KiB, of several readers, and page faults. A simulation in virtual time:
// what is fetched comes over a link with a latency and a bandwidth, in the order in which it was
// asked for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/lazy/read_ahead.h"

namespace strata {
namespace {

constexpr uint64_t kKiB = uint64_t{1} << 10;
constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr double kNever = std::numeric_limits<double>::infinity();

struct Event {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};
using Trace = std::vector<Event>;

// A file that is read from its beginning to its end (mm/readahead.c: the window doubles).
Trace Sequential(uint64_t begin, uint64_t bytes, uint64_t most = 128 * kKiB) {
  Trace trace;
  uint64_t step = 16 * kKiB;
  for (uint64_t at = 0; at < bytes; at += step, step = std::min(most, 2 * step)) {
    if (at > 0 && step < most) {
      step = std::min(most, step);
    }
    trace.push_back({begin + at, std::min(step, bytes - at)});
  }
  return trace;
}

// A program that starts: faults of 64 to 128 KiB all over its text, here and there in order.
Trace Faults(uint64_t begin, uint64_t bytes, uint32_t seed) {
  Trace trace{{begin, 128 * kKiB}};
  std::minstd_rand random(seed);
  uint64_t at = 0;
  for (int i = 0; i < 60; ++i) {
    const uint64_t jump = (64 + random() % 64) * kKiB / 4096 * 4096;
    switch (random() % 4) {
      case 0:
        at = random() % (bytes - 128 * kKiB) / 4096 * 4096;
        break;
      case 1:
        at -= std::min(at, 2 * jump);
        break;
      default:
        at += 64 * kKiB + jump;
    }
    at = std::min(at, bytes - 128 * kKiB);
    trace.push_back({begin + at, (random() % 2 == 0 ? 64 : 128) * kKiB});
  }
  return trace;
}

struct Link {
  double latency = 0;  // seconds
  double bytes_per_second = 0;
  double reader = 0;  // bytes per second that one takes
};
// The readers can be fed, and cannot.
constexpr Link kNear{0.002, 1200e6, 100e6};
constexpr Link kMiddle{0.03, 1200e6, 100e6};
constexpr Link kFar{0.1, 12e6, 1000e6};

class Simulation {
 public:
  explicit Simulation(const Link& link, uint64_t chunk_bytes = 64 * kKiB)
      : link_(link), chunk_bytes_(chunk_bytes), chunks_(kImage / chunk_bytes) {}

  // All traces at once, each as fast as its reader goes.
  void Run(const std::vector<Trace>& traces) {
    for (const Trace& trace : traces) {
      // They do not begin in the same moment.
      readers_.push_back({.trace = &trace, .time = kApart * static_cast<double>(readers_.size())});
    }
    while (true) {
      Reader* reader = nullptr;
      for (Reader& one : readers_) {
        const bool runs = one.next < one.trace->size() && one.time < kNever;
        if (runs && (reader == nullptr || one.time < reader->time)) {
          reader = &one;
        }
      }
      const double reader_time = reader == nullptr ? kNever : reader->time;
      if (!Serve(reader_time)) {
        if (reader == nullptr) {
          return;
        }
        Take(*reader);
      }
    }
  }

  // The numbers of the events of a reader that had to wait.
  [[nodiscard]] const std::vector<size_t>& waits(size_t reader) const {
    return readers_[reader].waits;
  }
  [[nodiscard]] size_t all_waits() const {
    size_t all = 0;
    for (const Reader& reader : readers_) {
      all += reader.waits.size();
    }
    return all;
  }
  [[nodiscard]] double seconds() const { return end_; }
  // How long the link alone takes.
  [[nodiscard]] double ideal(uint64_t bytes) const {
    return link_.latency + static_cast<double>(bytes) / link_.bytes_per_second;
  }
  [[nodiscard]] uint64_t fetched() const { return fetched_; }

 private:
  static constexpr uint64_t kImage = 1024 * kMiB;

  struct Chunk {
    bool asked = false;
    bool sent = false;
    double arrival = kNever;
  };
  struct Reader {
    const Trace* trace = nullptr;
    double time = 0;  // when it goes on; kNever: it waits
    size_t next = 0;
    std::vector<size_t> waits = {};
  };

  // Sends one chunk, if the link can before `limit`; those who are waited for first.
  bool Serve(double limit) {
    for (auto* queue : {&demand_, &ahead_queue_}) {
      while (!queue->empty() && chunks_[queue->front().first].sent) {
        queue->pop_front();
      }
    }
    auto& queue = demand_.empty() ? ahead_queue_ : demand_;
    if (queue.empty()) {
      return false;
    }
    const double start = std::max(link_free_, queue.front().second);
    if (start >= limit) {
      return false;
    }
    Chunk& chunk = chunks_[queue.front().first];
    queue.pop_front();
    link_free_ = start + static_cast<double>(chunk_bytes_) / link_.bytes_per_second;
    chunk.sent = true;
    chunk.arrival = link_free_ + link_.latency;
    fetched_ += chunk_bytes_;
    for (Reader& reader : readers_) {
      if (reader.next < reader.trace->size() && reader.time == kNever) {
        Answer(reader);
      }
    }
    return true;
  }

  [[nodiscard]] double Arrival(const Event& event) const {
    double last = 0;
    for (uint64_t i = event.offset / chunk_bytes_; i * chunk_bytes_ < event.offset + event.bytes;
         ++i) {
      last = std::max(last, chunks_[i].arrival);
    }
    return last;
  }

  void Ask(const Event& event, double now, bool demand) {
    const uint64_t end = std::min(event.offset + event.bytes, kImage);
    for (uint64_t i = event.offset / chunk_bytes_; i * chunk_bytes_ < end; ++i) {
      if (!chunks_[i].sent && (demand || !chunks_[i].asked)) {
        chunks_[i].asked = true;
        (demand ? demand_ : ahead_queue_).emplace_back(i, now);
      }
    }
  }

  // It goes on when all of its event is there.
  void Answer(Reader& reader) {
    const Event& event = (*reader.trace)[reader.next];
    const double arrival = Arrival(event);
    if (arrival < kNever) {
      end_ = std::max(end_, arrival);
      reader.time = arrival + kPerEvent + static_cast<double>(event.bytes) / link_.reader;
      ++reader.next;
    }
  }

  void Take(Reader& reader) {
    const Event& event = (*reader.trace)[reader.next];
    const double now = reader.time;
    const bool waits = Arrival(event) > now;
    if (waits) {
      reader.waits.push_back(reader.next);
      Ask(event, now, /*demand=*/true);
    }
    if (waits || ahead_.Watches(event.offset, event.bytes)) {
      const ReadAhead::Ask ask = ahead_.OnWant(event.offset, event.bytes, waits);
      if (ask.bytes > 0) {
        Ask({ask.offset, ask.bytes}, now, /*demand=*/false);
      }
    }
    if (waits) {
      reader.time = kNever;
      Answer(reader);
      return;
    }
    end_ = std::max(end_, now);
    reader.time = now + kPerEvent + static_cast<double>(event.bytes) / link_.reader;
    ++reader.next;
  }

  static constexpr double kPerEvent = 20e-6;
  static constexpr double kApart = 1e-4;

  const Link link_;
  const uint64_t chunk_bytes_;
  ReadAhead ahead_{64 * kMiB};
  std::vector<Chunk> chunks_;
  std::deque<std::pair<uint64_t, double>> demand_;  // and when it was asked for
  std::deque<std::pair<uint64_t, double>> ahead_queue_;
  std::vector<Reader> readers_;
  double link_free_ = 0;
  double end_ = 0;
  uint64_t fetched_ = 0;
};

// Eight files far from one another, each read from its beginning to its end.
std::vector<Trace> EightFiles(uint64_t bytes, uint64_t most = 128 * kKiB) {
  std::vector<Trace> traces;
  for (uint64_t i = 0; i < 8; ++i) {
    traces.push_back(Sequential(i * 100 * kMiB, bytes, most));
  }
  return traces;
}

std::vector<Trace> WithFourProgramsThatStart(std::vector<Trace> traces) {
  for (uint32_t i = 0; i < 4; ++i) {
    Trace faults = Faults((820 + uint64_t{i} * 50) * kMiB, 45 * kMiB, i + 1);
    for (Event& event : faults) {
      event.bytes = 64 * kKiB;
    }
    traces.push_back(std::move(faults));
  }
  return traces;
}

// Eight programs read 2000 small files between them, each the next one that nobody has taken.
std::vector<Trace> SmallFiles(uint64_t& bytes) {
  std::vector<Trace> traces(8);
  std::minstd_rand random(1);
  bytes = 0;
  for (size_t i = 0; i < 2000; ++i) {
    const uint64_t blocks = random() % 10 < 8 ? 1 + random() % 4 : 1 + random() % 100;
    const Trace file = Sequential(bytes, blocks * 4 * kKiB);
    traces[i % traces.size()].insert(traces[i % traces.size()].end(), file.begin(), file.end());
    bytes += blocks * 4 * kKiB;
  }
  return traces;
}

TEST(ReadAheadTraceTest, AReaderFindsEverythingAfterAFewEvents) {
  for (const Link& link : {kNear, kMiddle}) {
    Simulation run(link);
    run.Run({Sequential(0, 80 * kMiB)});
    EXPECT_LE(run.waits(0).size(), 3);
    EXPECT_LE(run.waits(0).back(), 4);
  }
}

TEST(ReadAheadTraceTest, EightReadersFindEverythingAfterAFewEvents) {
  Simulation run(kMiddle);
  run.Run(EightFiles(20 * kMiB));
  Simulation requests(kMiddle);
  requests.Run(EightFiles(20 * kMiB, kMiB));
  for (size_t reader = 0; reader < 8; ++reader) {
    EXPECT_LE(run.waits(reader).size(), 6) << reader;
  }
  EXPECT_LE(run.seconds(), 1.05 * requests.seconds());
}

TEST(ReadAheadTraceTest, ReadersGoOnWhileProgramsStart) {
  Simulation run(kMiddle);
  run.Run(WithFourProgramsThatStart(EightFiles(20 * kMiB)));
  for (size_t reader = 0; reader < 8; ++reader) {
    EXPECT_LE(run.waits(reader).size(), 8) << reader;
  }
}

TEST(ReadAheadTraceTest, AReaderFillsASlowLink) {
  Simulation run(kFar);
  run.Run({Sequential(0, 80 * kMiB)});
  EXPECT_LE(run.seconds(), 1.05 * run.ideal(80 * kMiB));
}

TEST(ReadAheadTraceTest, EightReadersShareASlowLink) {
  Simulation run(kFar);
  run.Run(EightFiles(20 * kMiB));
  EXPECT_LE(run.seconds(), 1.1 * run.ideal(160 * kMiB));
  // Behind the end of each file lie others, of which no more is taken than all may have ahead.
  EXPECT_LE(run.fetched(), 240 * kMiB);
}

TEST(ReadAheadTraceTest, SmallFilesThatAreReadInParallelAreOneStream) {
  uint64_t bytes = 0;
  const std::vector<Trace> traces = SmallFiles(bytes);
  Simulation run(kMiddle);
  run.Run(traces);
  EXPECT_LE(run.all_waits(), 120);
  Simulation slow(kFar);
  slow.Run(traces);
  EXPECT_LE(slow.seconds(), 1.05 * slow.ideal(bytes));
}

TEST(ReadAheadTraceTest, AProgramThatStartsIsSoonThere) {
  for (const uint64_t bytes : {16 * kKiB, 64 * kKiB, 128 * kKiB}) {
    Trace faults = Faults(0, 6 * kMiB, 1);
    for (Event& event : faults) {
      event.bytes = bytes;
    }
    Simulation run(kMiddle);
    run.Run({faults});
    EXPECT_LE(run.all_waits(), faults.size() / 3) << bytes;
  }
}

TEST(ReadAheadTraceTest, ScatteredReadsFetchLittleElse) {
  constexpr uint64_t kReads = 500;
  Trace trace;
  std::minstd_rand random(1);
  for (uint64_t i = 0; i < kReads; ++i) {
    trace.push_back({random() % (1000 * kMiB) / 4096 * 4096, 4096});
  }
  Simulation run(kMiddle);
  run.Run({trace});
  EXPECT_LE(run.fetched(), kReads * 64 * kKiB * 5 / 4);
}

}  // namespace
}  // namespace strata
