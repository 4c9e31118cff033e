// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/chunk_map.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace strata {
namespace {

// What a compressed byte can stand for at most. Deflate: 258 bytes for two bits. Zstd: a block of
// 128 KiB for its three bytes of header (RFC 8878 3.1.1.2).
constexpr uint64_t kMostGzipRatio = 1032;
constexpr uint64_t kMostZstdRatio = (128 << 10) / 3 + 1;

Status Wrong(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, why);
}

SpanCodec CodecOf(LayerFormat format) {
  switch (format) {
    case LayerFormat::kEstargz:
    case LayerFormat::kLegacyStargz:
    case LayerFormat::kExternalToc:
      return SpanCodec::kGzip;
    case LayerFormat::kZstdChunked:
    case LayerFormat::kZstdChunkedContainers:
      return SpanCodec::kZstd;
  }
  return SpanCodec::kGzip;
}

}  // namespace

ChunkMapBuilder::ChunkMapBuilder(const Footer& footer, const TocLimits& limits)
    : footer_(footer), limits_(limits) {}

Status ChunkMapBuilder::Add(const TocEntry& entry) {
  if (entry.type != EntryType::kChunk) {
    STRATA_RETURN_IF_ERROR(CloseFile());
  }
  if (entry.type == EntryType::kRegular) {
    file_ = OpenFile{.size = entry.size,
                     .end_offset = entry.end_offset,
                     .digest = entry.digest,
                     .first_chunk = map_.chunks.size()};
    ++map_.regular_files;
    return entry.size > 0 ? AddData(entry) : OkStatus();
  }
  if (entry.type == EntryType::kChunk) {
    return file_ ? AddData(entry) : Wrong("a chunk that belongs to no regular file");
  }
  return OkStatus();
}

Status ChunkMapBuilder::AddData(const TocEntry& entry) {
  if (entry.chunk_offset != file_->covered || entry.chunk_offset >= file_->size) {
    return Wrong("a chunk begins at " + std::to_string(entry.chunk_offset) +
                 " of the file, not at " + std::to_string(file_->covered));
  }
  const uint64_t rest = file_->size - entry.chunk_offset;
  const uint64_t bytes = entry.chunk_size == 0 ? rest : entry.chunk_size;
  if (bytes > rest) {
    return Wrong("a chunk ends behind the file's end");
  }
  ChunkRecord chunk = {.file_index = map_.regular_files - 1,
                       .file_offset = entry.chunk_offset,
                       .bytes = bytes,
                       .span = kZerosSpan};
  if (!entry.zeros) {
    if (bytes > limits_.chunk_bytes) {
      return Wrong("a chunk of " + std::to_string(bytes) + " bytes is more than the limit");
    }
    STRATA_RETURN_IF_ERROR(PlaceInSpan(entry, chunk));
  }
  if (entry.chunk_digest) {
    chunk.digest = *entry.chunk_digest;
    chunk.has_digest = true;
  }
  map_.chunks.push_back(chunk);
  file_->covered += bytes;
  return OkStatus();
}

Status ChunkMapBuilder::PlaceInSpan(const TocEntry& entry, ChunkRecord& chunk) {
  if (entry.offset == 0 && entry.inner_offset == 0) {
    return Wrong("it does not say where its contents are");
  }
  const bool same =
      span_open_ && entry.inner_offset > 0 && entry.offset == map_.spans.back().blob_offset;
  if (!same) {
    STRATA_RETURN_IF_ERROR(OpenSpan(entry.offset));
  }
  SpanRecord& span = map_.spans.back();
  if (entry.inner_offset < span.decoded_bytes) {
    return Wrong("its contents overlap those before");
  }
  if (entry.inner_offset > limits_.span_decoded_bytes ||
      chunk.bytes > limits_.span_decoded_bytes - entry.inner_offset) {
    return Wrong("innerOffset " + std::to_string(entry.inner_offset) + " is more than the limit");
  }
  span.decoded_bytes = entry.inner_offset + chunk.bytes;
  chunk.span = static_cast<uint32_t>(map_.spans.size() - 1);
  chunk.inner_offset = entry.inner_offset;
  return OkStatus();
}

Status ChunkMapBuilder::OpenSpan(uint64_t offset) {
  if (span_open_) {
    STRATA_RETURN_IF_ERROR(CloseSpan(offset));
  }
  if (offset < blob_used_ || offset >= footer_.payload_end) {
    return Wrong("its contents at " + std::to_string(offset) + " of the blob are not between " +
                 std::to_string(blob_used_) + " and " + std::to_string(footer_.payload_end));
  }
  if (map_.spans.size() >= kZerosSpan) {
    return Wrong("too many spans");
  }
  map_.spans.push_back({.blob_offset = offset, .codec = CodecOf(footer_.format)});
  span_open_ = true;
  return OkStatus();
}

Status ChunkMapBuilder::CloseSpan(uint64_t end) {
  SpanRecord& span = map_.spans.back();
  if (end <= span.blob_offset || end > footer_.payload_end) {
    return Wrong("the contents at " + std::to_string(span.blob_offset) + " of the blob end at " +
                 std::to_string(end));
  }
  span.blob_bytes = end - span.blob_offset;
  if (span.blob_bytes > limits_.span_blob_bytes) {
    return Wrong("the contents at " + std::to_string(span.blob_offset) + " of the blob take " +
                 std::to_string(span.blob_bytes) + " bytes there, more than the limit");
  }
  const uint64_t ratio = span.codec == SpanCodec::kGzip ? kMostGzipRatio : kMostZstdRatio;
  if (span.decoded_bytes / ratio > span.blob_bytes) {
    return Wrong(std::to_string(span.blob_bytes) + " bytes of the blob cannot decode to " +
                 std::to_string(span.decoded_bytes));
  }
  span_open_ = false;
  blob_used_ = end;
  return OkStatus();
}

Status ChunkMapBuilder::CloseFile() {
  if (!file_) {
    return OkStatus();
  }
  if (file_->covered != file_->size) {
    return Wrong("the chunks of the file before cover " + std::to_string(file_->covered) + " of " +
                 std::to_string(file_->size) + " bytes");
  }
  const size_t chunks = map_.chunks.size() - file_->first_chunk;
  if (chunks == 1 && !map_.chunks.back().has_digest && file_->digest) {
    map_.chunks.back().digest = *file_->digest;
    map_.chunks.back().has_digest = true;
  }
  bool has_contents = false;
  for (size_t i = file_->first_chunk; i < map_.chunks.size(); ++i) {
    has_contents = has_contents || map_.chunks[i].span != kZerosSpan;
    if (map_.chunks[i].span != kZerosSpan && !map_.chunks[i].has_digest) {
      ++map_.unverified_chunks;
    }
  }
  // containers/storage says where a file's last frame ends; what follows are tar headers.
  if (file_->end_offset > 0 && has_contents && span_open_) {
    STRATA_RETURN_IF_ERROR(CloseSpan(file_->end_offset));
  }
  file_.reset();
  return OkStatus();
}

StatusOr<ChunkMap> ChunkMapBuilder::Finish() {
  STRATA_RETURN_IF_ERROR(CloseFile());
  if (span_open_) {
    STRATA_RETURN_IF_ERROR(CloseSpan(footer_.payload_end));
  }
  return std::move(map_);
}

}  // namespace strata
