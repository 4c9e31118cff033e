// SPDX-License-Identifier: Apache-2.0
//
// HeldRange: the part of a wanted range that could not be written, in memory. Filled by one thread
// at a time, before anybody reads.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "snapshotters/lazy/filler.h"

namespace strata {

class HeldRange : public HeldBytes {
 public:
  // `held` counts the bytes of all ranges while they live.
  explicit HeldRange(std::shared_ptr<std::atomic<uint64_t>> held) : held_(std::move(held)) {}
  ~HeldRange() override;
  HeldRange(const HeldRange&) = delete;
  HeldRange& operator=(const HeldRange&) = delete;

  // Keeps a copy. Pieces do not overlap.
  void Add(uint64_t image_offset, std::span<const uint8_t> bytes);

  [[nodiscard]] Status Read(int image_fd, uint64_t offset, std::span<uint8_t> out) const override;

 private:
  struct Piece {
    uint64_t image_offset = 0;
    std::vector<uint8_t> bytes;
  };

  const std::shared_ptr<std::atomic<uint64_t>> held_;
  std::vector<Piece> pieces_;  // by offset
};

}  // namespace strata
