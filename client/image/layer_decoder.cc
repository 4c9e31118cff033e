// SPDX-License-Identifier: Apache-2.0
#include "client/image/layer_decoder.h"

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace strata {
namespace {

constexpr size_t kInputBytes = size_t{256} << 10;
constexpr size_t kMagicBytes = 6;

// Input in pieces, with what was looked at first.
class Input {
 public:
  explicit Input(ByteSource source) : source_(std::move(source)), buffer_(new char[kInputBytes]) {}

  // At least `count` bytes are in hand, unless the end comes before.
  Status Fill(size_t count) {
    if (size_ - at_ >= count || ended_) {
      return OkStatus();
    }
    std::memmove(buffer_.get(), buffer_.get() + at_, size_ - at_);
    size_ -= at_;
    at_ = 0;
    while (size_ < count) {
      STRATA_ASSIGN_OR_RETURN(const size_t more,
                              source_(buffer_.get() + size_, kInputBytes - size_));
      if (more == 0) {
        ended_ = true;
        return OkStatus();
      }
      size_ += more;
    }
    return OkStatus();
  }

  [[nodiscard]] std::string_view bytes() const { return {buffer_.get() + at_, size_ - at_}; }
  void Skip(size_t count) { at_ += count; }

  // Past what is in hand, without a copy.
  StatusOr<size_t> Read(char* buffer, size_t size) {
    if (at_ == size_) {
      return ended_ ? StatusOr<size_t>(size_t{0}) : source_(buffer, size);
    }
    const size_t count = std::min(size, size_ - at_);
    std::memcpy(buffer, buffer_.get() + at_, count);
    at_ += count;
    return count;
  }

 private:
  ByteSource source_;
  std::unique_ptr<char[]> buffer_;
  size_t at_ = 0;
  size_t size_ = 0;
  bool ended_ = false;
};

Status Broken(std::string_view what, std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss,
                    "layer is no valid " + std::string(what) + ": " + std::string(why));
}

class PlainDecoder : public LayerDecoder {
 public:
  explicit PlainDecoder(Input input) : input_(std::move(input)) {}
  StatusOr<size_t> Read(char* buffer, size_t size) override { return input_.Read(buffer, size); }

 private:
  Input input_;
};

class GzipDecoder : public LayerDecoder {
 public:
  explicit GzipDecoder(Input input) : input_(std::move(input)), state_(new inflate_state) {
    ::isal_inflate_init(state_.get());
    state_->crc_flag = ISAL_GZIP;  // headers are read, trailers verified (igzip_lib.h)
  }

  StatusOr<size_t> Read(char* buffer, size_t size) override {
    size = std::min(size, size_t{1} << 30);
    state_->next_out = reinterpret_cast<uint8_t*>(buffer);
    state_->avail_out = static_cast<uint32_t>(size);
    while (state_->avail_out == size) {
      STRATA_RETURN_IF_ERROR(in_member_ ? input_.Fill(1) : FillHeader());
      const bool at_end = input_.bytes().empty();
      if (at_end && !in_member_) {
        return size_t{0};
      }
      STRATA_RETURN_IF_ERROR(Step());
      // It may hold back what it has read already, so the end of the input alone says nothing.
      if (at_end && in_member_ && state_->avail_out == size) {
        return Broken("gzip", "it is cut off");
      }
    }
    return size - state_->avail_out;
  }

 private:
  // Of a header with a checksum of its own, ISA-L 2.30 gets that wrong when it is given in pieces.
  Status FillHeader() {
    constexpr size_t kFlags = 3;
    constexpr char kHeaderCrc = 1 << 1;  // FHCRC of RFC 1952
    STRATA_RETURN_IF_ERROR(input_.Fill(kFlags + 1));
    const std::string_view bytes = input_.bytes();
    const bool has_crc = bytes.size() > kFlags && (bytes[kFlags] & kHeaderCrc) != 0;
    return has_crc ? input_.Fill(kInputBytes) : OkStatus();
  }
  Status Step() {
    in_member_ = true;
    // The library's signature; it does not write there.
    state_->next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(input_.bytes().data()));
    state_->avail_in = static_cast<uint32_t>(input_.bytes().size());
    const size_t before = state_->avail_in;
    const int result = ::isal_inflate(state_.get());
    input_.Skip(before - state_->avail_in);
    if (result != ISAL_DECOMP_OK) {
      return Broken("gzip", ShowResult(result));
    }
    if (state_->block_state == ISAL_BLOCK_FINISH) {
      ::isal_inflate_reset(state_.get());
      state_->total_out = 0;  // a trailer's length is of its own member
      in_member_ = false;
    }
    return OkStatus();
  }
  static std::string_view ShowResult(int result) {
    switch (result) {
      case ISAL_INVALID_WRAPPER:
        return "what follows is no gzip header";
      case ISAL_UNSUPPORTED_METHOD:
        return "it is compressed by another method than deflate";
      case ISAL_INCORRECT_CHECKSUM:
        return "its checksum or length is wrong";
      default:
        return "damaged data";
    }
  }

  Input input_;
  const std::unique_ptr<inflate_state> state_;  // some 90 KiB
  bool in_member_ = false;
};

class ZstdDecoder : public LayerDecoder {
 public:
  explicit ZstdDecoder(Input input)
      : input_(std::move(input)), stream_(::ZSTD_createDStream(), ::ZSTD_freeDStream) {}

  StatusOr<size_t> Read(char* buffer, size_t size) override {
    ZSTD_outBuffer out{buffer, size, 0};
    while (out.pos == 0) {
      STRATA_RETURN_IF_ERROR(input_.Fill(1));
      const std::string_view bytes = input_.bytes();
      if (bytes.empty() && !in_frame_) {
        return size_t{0};
      }
      ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
      const size_t left = ::ZSTD_decompressStream(stream_.get(), &out, &in);
      if (::ZSTD_isError(left) != 0) {
        return Broken("zstd", ::ZSTD_getErrorName(left));
      }
      if (bytes.empty() && out.pos == 0 && left != 0) {
        return Broken("zstd", "it is cut off");
      }
      input_.Skip(in.pos);
      in_frame_ = left != 0;  // 0: a frame has ended and all of it is out
    }
    return out.pos;
  }

 private:
  Input input_;
  const std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream_;
  bool in_frame_ = false;
};

bool IsZstd(std::string_view bytes) {
  // RFC 8878: a frame, or one of those to be skipped, as zstd:chunked begins with none and ends
  // with some.
  return bytes.starts_with("\x28\xb5\x2f\xfd") ||
         (bytes.size() >= 4 && (bytes[0] & 0xf0) == 0x50 && bytes.substr(1, 3) == "\x2a\x4d\x18");
}

}  // namespace

StatusOr<std::unique_ptr<LayerDecoder>> OpenLayerDecoder(ByteSource source) {
  Input input(std::move(source));
  STRATA_RETURN_IF_ERROR(input.Fill(kMagicBytes));
  const std::string_view bytes = input.bytes();
  if (bytes.starts_with("\x1f\x8b")) {
    return std::unique_ptr<LayerDecoder>(std::make_unique<GzipDecoder>(std::move(input)));
  }
  if (IsZstd(bytes)) {
    return std::unique_ptr<LayerDecoder>(std::make_unique<ZstdDecoder>(std::move(input)));
  }
  for (const auto& [magic, name] : {std::pair<std::string_view, const char*>{"\xfd"
                                                                             "7zXZ",
                                                                             "xz"},
                                    std::pair<std::string_view, const char*>{"BZh", "bzip2"}}) {
    if (bytes.starts_with(magic)) {
      return MakeStatus(
          StatusCode::kFailedPrecondition,
          std::string("layer is compressed by ") + name + ", expected gzip, zstd or nothing");
    }
  }
  return std::unique_ptr<LayerDecoder>(std::make_unique<PlainDecoder>(std::move(input)));
}

}  // namespace strata
