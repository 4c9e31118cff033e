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

// A few streams are told apart. Each has a window in front of it that slides with the reader and
// grows while the reader finds it empty, that is, while the link is not full yet. Data of files
// lies in the order of the blob, so a stream goes on into the next file.
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
  static constexpr size_t kStreams = 8;

  struct Stream {
    uint64_t next = 0;       // behind the last byte that was wanted
    uint64_t ahead = 0;      // behind the last byte that was asked for
    uint64_t window = 0;     // 0: not known to be sequential
    uint64_t grow_from = 0;  // a reader that waits behind this has used up the window
    uint64_t used = 0;       // when, in wants
    // Watches: a want that reaches behind `mark` and begins before `mark_end`.
    std::atomic<uint64_t> mark{std::numeric_limits<uint64_t>::max()};
    std::atomic<uint64_t> mark_end{0};
  };

  Stream* Find(uint64_t offset, uint64_t end, uint64_t slack);
  void Begin(uint64_t end, uint64_t slack);
  Ask Slide(Stream& stream, uint64_t slack);

  const uint64_t most_bytes_;
  std::array<Stream, kStreams> streams_;
  uint64_t wants_ = 0;
};

}  // namespace strata
