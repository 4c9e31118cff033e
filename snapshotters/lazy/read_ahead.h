// SPDX-License-Identifier: Apache-2.0
//
// ReadAhead: which parts of a layer's image its sequential readers will want next. Watches may be
// called from any thread at any time; OnWant by one thread at a time.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>

namespace strata {

// Some streams are told apart. Each has a window in front of it that slides with the reader and
// grows while the reader finds it empty, that is, while the link is not full yet; those that go on
// at the same time share what may be asked for ahead. Data of files lies in the order of the blob,
// so a stream goes on into the next file. Page faults jump: what begins a little behind the last
// one is a stream, too, but one that is trusted with less.
class ReadAhead {
 public:
  // 0: never asks for anything.
  explicit ReadAhead(uint64_t most_bytes) : most_bytes_(most_bytes) {}

  // Whether OnWant has to know of this want although all of it is present.
  [[nodiscard]] bool Watches(uint64_t offset, uint64_t bytes) const;

  struct Ask {
    uint64_t offset = 0;
    uint64_t bytes = 0;  // 0: nothing
  };
  // A reader wants [offset, offset + bytes); `waits`: some of it is not present. What to ask for
  // now lies behind that range, and may have been asked for by others.
  Ask OnWant(uint64_t offset, uint64_t bytes, bool waits);

 private:
  static constexpr size_t kStreams = 32;
  // At most so many that are not known to be sequential keep others from their place.
  static constexpr size_t kCandidates = 8;

  struct Stream {
    uint64_t next = 0;       // behind the last byte that was wanted
    uint64_t ahead = 0;      // behind the last byte that was asked for
    uint64_t window = 0;     // 0: not known to be sequential
    uint64_t grow_from = 0;  // a reader that waits behind this has used up the window
    uint64_t used = 0;       // when, in wants; 0: never
  };
  // Watches: a want that reaches behind `begin` and begins before `end`. One for each stream, apart
  // from it because all of them are looked at for each read.
  struct Mark {
    std::atomic<uint64_t> begin{std::numeric_limits<uint64_t>::max()};
    std::atomic<uint64_t> end{0};
  };

  Stream* Find(uint64_t offset, uint64_t end);
  Stream& Oldest();
  void Begin(uint64_t end);
  Ask Slide(Stream& stream);
  // How far one stream may look ahead now.
  [[nodiscard]] uint64_t Share() const;
  void SetMark(const Stream& stream, uint64_t begin);

  const uint64_t most_bytes_;
  std::array<Stream, kStreams> streams_;
  std::array<Mark, kStreams> marks_;
  uint64_t wants_ = 0;
};

}  // namespace strata
