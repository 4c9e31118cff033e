// SPDX-License-Identifier: Apache-2.0
//
// Extents: which chunks of an image are present: a bit each in memory, and on disk a file that may
// lag behind the truth and never leads it (FORMAT.md, "extents"). Safe from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "snapshotters/base/status.h"

namespace strata {

class Extents {
 public:
  // What the file has to carry to be believed: the image and table that it speaks of.
  struct Identity {
    uint32_t chunks = 0;
    uint64_t image_bytes = 0;
    uint32_t table_checksum = 0;
  };

  // Nothing present.
  explicit Extents(const Identity& identity);

  // Takes over what file `name` says. A file that is missing, torn, of another identity or version
  // leaves everything absent; the Status says so (NotFound, DataLoss), and the object is usable
  // either way. Call it before other threads know this.
  Status Load(int directory_fd, const std::string& name);

  // A chunk whose content is the image's hole is present from the start: set after Load, it is
  // nothing that has to be persisted. Call it before other threads know this.
  void SetHole(uint32_t chunk);

  [[nodiscard]] bool Has(uint32_t chunk) const;
  // Marks a chunk whose bytes are in the image, written and verified; false: it was marked already.
  bool Set(uint32_t chunk);
  // The first absent chunk in [first, end), or end.
  [[nodiscard]] uint32_t FirstAbsent(uint32_t first, uint32_t end) const;
  [[nodiscard]] uint32_t present() const { return present_.load(std::memory_order_acquire); }
  [[nodiscard]] uint32_t chunks() const { return identity_.chunks; }
  [[nodiscard]] bool complete() const { return present() == chunks(); }
  // Whether something was set since the last Persist that succeeded.
  [[nodiscard]] bool dirty() const;

  // Makes what is present now survive a power cut: fdatasync of `image_fd`, then the file `name`,
  // replaced in one step. One thread at a time. When that sync has failed once, every later call
  // fails too: what it covered may be lost, and no bit of it may get to the disk.
  Status Persist(int image_fd, int directory_fd, const std::string& name);

 private:
  const Identity identity_;
  const std::unique_ptr<std::atomic<uint64_t>[]> words_;
  std::atomic<uint32_t> present_{0};
  std::atomic<uint32_t> persisted_{0};
  // Of the thread that persists.
  uint64_t generation_ = 0;  // of the file
  Status sync_failure_;
};

}  // namespace strata
