// SPDX-License-Identifier: Apache-2.0
//
// ImageOutput: an image's bytes to its file, in order and in large pieces. One thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/status.h"

namespace strata {

// `fd` must outlive it. What was appended and not flushed is lost.
class ImageOutput {
 public:
  explicit ImageOutput(int fd) : fd_(fd) { buffer_.reserve(kBufferBytes); }

  Status Append(std::string_view bytes) {
    buffer_ += bytes;
    return buffer_.size() < kBufferBytes ? OkStatus() : Flush();
  }
  // Zeros up to `offset`, which is not behind what was written.
  Status PadTo(uint64_t offset) {
    buffer_.resize(buffer_.size() + (offset - (flushed_ + buffer_.size())));
    return OkStatus();
  }
  Status Flush() {
    STRATA_RETURN_IF_ERROR(WriteAt(buffer_, flushed_));
    flushed_ += buffer_.size();
    buffer_.clear();
    return OkStatus();
  }
  [[nodiscard]] Status WriteAt(std::string_view bytes, uint64_t offset) const {
    return WriteAllAt(fd_, bytes, offset, "image");
  }

 private:
  static constexpr size_t kBufferBytes = size_t{1} << 20;
  int fd_;
  uint64_t flushed_ = 0;
  std::string buffer_;
};

}  // namespace strata
