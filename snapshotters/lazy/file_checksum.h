// SPDX-License-Identifier: Apache-2.0
//
// Parts of a file, read whole or summed up; a file that ends too early is DataLoss. Stateless, safe
// from any thread.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <span>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/crc32c.h"

namespace strata {

inline Status ReadExactlyAt(int fd, uint64_t offset, std::span<uint8_t> out) {
  while (!out.empty()) {
    const ssize_t count = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return ErrnoStatus(errno, "read file");
    }
    if (count == 0) {
      return MakeStatus(StatusCode::kDataLoss, "read file: it ends too early");
    }
    out = out.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return OkStatus();
}

// CRC-32C of [offset, offset + bytes), going on from `before`.
inline StatusOr<uint32_t> ChecksumOf(int fd, uint64_t offset, uint64_t bytes, uint32_t before = 0) {
  constexpr size_t kPieceBytes = size_t{128} << 10;
  const size_t room = static_cast<size_t>(std::min<uint64_t>(kPieceBytes, bytes));
  const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(room);
  uint32_t sum = before;
  while (bytes > 0) {
    const std::span<uint8_t> piece(buffer.get(),
                                   static_cast<size_t>(std::min<uint64_t>(room, bytes)));
    STRATA_RETURN_IF_ERROR(ReadExactlyAt(fd, offset, piece));
    sum = Crc32c(piece, sum);
    offset += piece.size();
    bytes -= piece.size();
  }
  return sum;
}

}  // namespace strata
