// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/held_range.h"

#include <algorithm>
#include <utility>

#include "snapshotters/lazy/file_checksum.h"

namespace strata {

HeldRange::~HeldRange() {
  for (const Piece& piece : pieces_) {
    held_->fetch_sub(piece.bytes.size(), std::memory_order_relaxed);
  }
}

void HeldRange::Add(uint64_t image_offset, std::span<const uint8_t> bytes) {
  held_->fetch_add(bytes.size(), std::memory_order_relaxed);
  Piece piece{.image_offset = image_offset, .bytes = {bytes.begin(), bytes.end()}};
  const auto place = std::upper_bound(
      pieces_.begin(), pieces_.end(), piece,
      [](const Piece& left, const Piece& right) { return left.image_offset < right.image_offset; });
  pieces_.insert(place, std::move(piece));
}

Status HeldRange::Read(int image_fd, uint64_t offset, std::span<uint8_t> out) const {
  for (const Piece& piece : pieces_) {
    const uint64_t piece_end = piece.image_offset + piece.bytes.size();
    if (out.empty() || piece_end <= offset) {
      continue;
    }
    if (piece.image_offset > offset) {
      const auto before =
          static_cast<size_t>(std::min<uint64_t>(piece.image_offset - offset, out.size()));
      STRATA_RETURN_IF_ERROR(ReadExactlyAt(image_fd, offset, out.first(before)));
      out = out.subspan(before);
      offset += before;
    }
    const auto from = static_cast<size_t>(offset - piece.image_offset);
    const size_t bytes = out.empty() ? 0 : std::min(piece.bytes.size() - from, out.size());
    std::copy_n(piece.bytes.begin() + static_cast<ptrdiff_t>(bytes == 0 ? 0 : from), bytes,
                out.begin());
    out = out.subspan(bytes);
    offset += bytes;
  }
  return ReadExactlyAt(image_fd, offset, out);
}

}  // namespace strata
