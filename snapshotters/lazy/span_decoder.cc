// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/span_decoder.h"

#include <libdeflate.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "snapshotters/base/check.h"

namespace strata {
namespace {

// The shortest gzip member: header, an empty block, checksum and length (RFC 1952).
constexpr size_t kSmallestMember = 18;
// A deflate stream cannot expand further: 258 bytes for two bits.
constexpr uint64_t kMostDeflateRatio = 1032;
// What a frame may make the decoder keep; the limit of zstd's own command line tool.
constexpr int kZstdWindowLog = 27;
constexpr size_t kFirstZstdBytes = 1 << 20;

Status Damaged(std::string_view what) {
  return MakeStatus(StatusCode::kDataLoss, "decode span: " + std::string(what));
}

bool StartsMember(std::span<const uint8_t> bytes) {
  return bytes.size() >= kSmallestMember && bytes[0] == 0x1f && bytes[1] == 0x8b;
}

bool StartsFrame(std::span<const uint8_t> bytes) {
  // RFC 8878 3.1: the magic number of a frame, or of one that is skipped (sixteen numbers).
  if (bytes.size() < 4 || (bytes[0] & 0xf0) != (bytes[1] == 0x2a ? 0x50 : 0x20)) {
    return false;
  }
  return bytes[1] == 0x2a
             ? bytes[2] == 0x4d && bytes[3] == 0x18
             : bytes[0] == 0x28 && bytes[1] == 0xb5 && bytes[2] == 0x2f && bytes[3] == 0xfd;
}

// RFC 1952: a member ends with its length. True for a span that is one member, else a guess.
uint64_t LengthHint(std::span<const uint8_t> compressed) {
  uint32_t length = 0;
  for (size_t i = 0; i < 4; ++i) {
    length |= static_cast<uint32_t>(compressed[compressed.size() - 4 + i]) << (8 * i);
  }
  return length;
}

}  // namespace

void DecodedBuffer::Reserve(size_t capacity) {
  if (capacity <= capacity_) {
    return;
  }
  auto grown = std::make_unique_for_overwrite<uint8_t[]>(capacity);
  if (size_ > 0) {
    std::memcpy(grown.get(), data_.get(), size_);
  }
  data_ = std::move(grown);
  capacity_ = capacity;
}

void SpanDecoder::GzipDeleter::operator()(libdeflate_decompressor* decompressor) const {
  libdeflate_free_decompressor(decompressor);
}

void SpanDecoder::ZstdDeleter::operator()(ZSTD_DCtx_s* context) const {
  ZSTD_freeDCtx(context);
}

SpanDecoder::SpanDecoder() = default;
SpanDecoder::~SpanDecoder() = default;

Status SpanDecoder::Decode(SpanCodec codec, std::span<const uint8_t> compressed, uint64_t needed,
                           uint64_t most, DecodedBuffer& out) {
  out.size_ = 0;
  if (needed > most) {
    return Damaged(std::to_string(needed) + " bytes are more than the limit");
  }
  Status status;
  switch (codec) {
    case SpanCodec::kNone:
      if (compressed.size() < needed) {
        status = Damaged("it is too short");
        break;
      }
      out.Reserve(needed);
      std::copy_n(compressed.data(), needed, out.data_.get());
      out.size_ = needed;
      break;
    case SpanCodec::kGzip:
      status = DecodeGzip(compressed, needed, most, out);
      break;
    case SpanCodec::kZstd:
      status = DecodeZstd(compressed, needed, out);
      break;
  }
  if (!status.ok()) {
    out.size_ = 0;
  }
  return status;
}

Status SpanDecoder::DecodeGzip(std::span<const uint8_t> compressed, uint64_t needed, uint64_t most,
                               DecodedBuffer& out) {
  if (gzip_ == nullptr) {
    gzip_.reset(libdeflate_alloc_decompressor());
    STRATA_CHECK(gzip_ != nullptr);
  }
  do {
    if (!StartsMember(compressed)) {
      return Damaged(compressed.empty() ? "it ends too early" : "what follows is no gzip member");
    }
    // libdeflate decodes a member whole or not at all, so the first try has room for what the
    // span's end says, and only a span of several members needs another.
    const uint64_t possible = std::min(most, out.size_ + compressed.size() * kMostDeflateRatio);
    uint64_t room = std::min(possible, std::max(needed, out.size_ + LengthHint(compressed)));
    size_t consumed = 0;
    size_t produced = 0;
    libdeflate_result result = LIBDEFLATE_INSUFFICIENT_SPACE;
    while (true) {
      out.Reserve(room);
      result = libdeflate_gzip_decompress_ex(gzip_.get(), compressed.data(), compressed.size(),
                                             out.data_.get() + out.size_, room - out.size_,
                                             &consumed, &produced);
      if (result != LIBDEFLATE_INSUFFICIENT_SPACE || room >= possible) {
        break;
      }
      room = std::min(possible, std::max<uint64_t>(2 * room, 4096));
    }
    if (result == LIBDEFLATE_INSUFFICIENT_SPACE) {
      return Damaged("it decodes to more than " + std::to_string(possible) + " bytes");
    }
    if (result != LIBDEFLATE_SUCCESS) {
      return Damaged("a gzip member is damaged");
    }
    out.size_ += produced;
    compressed = compressed.subspan(consumed);
  } while (out.size_ < needed);
  if (!compressed.empty() && !StartsMember(compressed)) {
    return Damaged("foreign bytes follow the last gzip member");
  }
  return OkStatus();
}

Status SpanDecoder::DecodeZstd(std::span<const uint8_t> compressed, uint64_t needed,
                               DecodedBuffer& out) {
  if (zstd_ == nullptr) {
    zstd_.reset(ZSTD_createDCtx());
    STRATA_CHECK(zstd_ != nullptr);
    STRATA_CHECK(ZSTD_isError(ZSTD_DCtx_setParameter(zstd_.get(), ZSTD_d_windowLogMax,
                                                     kZstdWindowLog)) == 0);
  }
  ZSTD_DCtx_reset(zstd_.get(), ZSTD_reset_session_only);
  ZSTD_inBuffer in = {.src = compressed.data(), .size = compressed.size(), .pos = 0};
  bool frame_ended = true;
  // Room comes as it is filled, so that a length that a stranger claims costs nothing yet.
  out.Reserve(std::min<uint64_t>(needed, kFirstZstdBytes));
  while (out.size_ < needed) {
    if (frame_ended && !StartsFrame(compressed.subspan(in.pos))) {
      return Damaged(in.pos == in.size ? "it ends too early" : "what follows is no zstd frame");
    }
    if (out.size_ == out.capacity_) {
      out.Reserve(std::min<uint64_t>(needed, 2 * out.capacity_));
    }
    ZSTD_outBuffer to = {.dst = out.data_.get(),
                         .size = std::min<uint64_t>(needed, out.capacity_),
                         .pos = out.size_};
    const size_t in_before = in.pos;
    const size_t left = ZSTD_decompressStream(zstd_.get(), &to, &in);
    if (ZSTD_isError(left) != 0) {
      return Damaged(std::string("a zstd frame is damaged: ") + ZSTD_getErrorName(left));
    }
    const bool moved = to.pos > out.size_ || in.pos > in_before;
    out.size_ = to.pos;
    frame_ended = left == 0;
    if (!frame_ended && !moved) {
      return Damaged("it ends too early");
    }
  }
  return OkStatus();
}

}  // namespace strata
