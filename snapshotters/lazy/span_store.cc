// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/span_store.h"

#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/fault.h"

namespace strata {
namespace {

// Others who wait for room, our own threads above all, may take what the reserve gives before we
// do.
constexpr int kMostYields = 32;  // for one write

// Chunks that follow one another both in the span and in the image.
struct Run {
  uint64_t image_offset = 0;
  uint64_t inner_offset = 0;
  uint64_t bytes = 0;
  std::vector<uint32_t> chunks;
};

// Writes, and advances by what was written, also when it fails.
Status WritePiece(int fd, uint64_t& offset, std::span<const uint8_t>& bytes) {
  STRATA_FAULT_POINT("filler.write");
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0) {
      return ErrnoStatus(errno, "write the image at " + std::to_string(offset));
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return OkStatus();
}

Status WriteImage(LayerImage& image, uint64_t offset, std::span<const uint8_t> bytes,
                  SpaceReserve* reserve) {
  const size_t all = bytes.size();
  const bool has_room = reserve != nullptr && reserve->reserved(image.number()) > 0;
  // A layer that has nothing reserved must not use what is for the others.
  if (reserve != nullptr && !has_room && reserve->IsPressed()) {
    return ErrnoStatus(ENOSPC, "write the image, for which no room is set aside");
  }
  Status status = WritePiece(image.image_fd(), offset, bytes);
  for (int i = 0; i < kMostYields && IsDiskFull(status) && has_room && reserve->Yield(bytes.size());
       ++i) {
    status = WritePiece(image.image_fd(), offset, bytes);
  }
  if (status.ok() && reserve != nullptr) {
    reserve->Used(image.number(), all);
  }
  return status;
}

bool Holds(const TableChunk& chunk, std::span<const uint8_t> decoded) {
  if (chunk.inner_offset > decoded.size() || chunk.bytes > decoded.size() - chunk.inner_offset) {
    return false;
  }
  // Without a digest: the layer was accepted with such chunks by configuration.
  return !chunk.has_digest ||
         Sha256({reinterpret_cast<const char*>(decoded.data()) + chunk.inner_offset,
                 static_cast<size_t>(chunk.bytes)}) == chunk.digest;
}

void StoreRun(LayerImage& image, const Run& run, std::span<const uint8_t> decoded,
              SpaceReserve* reserve, StoreResult& result) {
  if (run.chunks.empty()) {
    return;
  }
  const Status status = WriteImage(
      image, run.image_offset,
      decoded.subspan(static_cast<size_t>(run.inner_offset), static_cast<size_t>(run.bytes)),
      reserve);
  if (!status.ok()) {
    result.written.Update(status);
    result.unwritten.insert(result.unwritten.end(), run.chunks.begin(), run.chunks.end());
    return;
  }
  result.written_bytes += run.bytes;
  for (const uint32_t chunk : run.chunks) {
    result.marked = image.extents().Set(chunk) || result.marked;
  }
}

}  // namespace

StoreResult StoreSpan(LayerImage& image, uint32_t span, std::span<const uint8_t> decoded,
                      SpaceReserve* reserve) {
  StoreResult result;
  Run run;
  for (const uint32_t index : image.chunks().ChunksOf(span)) {
    if (image.extents().Has(index)) {
      continue;
    }
    const TableChunk chunk = image.chunks().chunk(index);
    if (!Holds(chunk, decoded)) {
      ++result.mismatches;
      result.verified.Update(MakeStatus(
          StatusCode::kDataLoss,
          "verify the chunk at " + std::to_string(chunk.image_offset) + ": the digest differs"));
      continue;
    }
    if (chunk.image_offset != run.image_offset + run.bytes ||
        chunk.inner_offset != run.inner_offset + run.bytes) {
      StoreRun(image, run, decoded, reserve, result);
      run = {.image_offset = chunk.image_offset, .inner_offset = chunk.inner_offset};
    }
    run.bytes += chunk.bytes;
    run.chunks.push_back(index);
  }
  StoreRun(image, run, decoded, reserve, result);
  return result;
}

bool IsDiskFull(const Status& status) {
  const auto error = StatusErrno(status);
  return error == ENOSPC || error == EDQUOT;
}

}  // namespace strata
