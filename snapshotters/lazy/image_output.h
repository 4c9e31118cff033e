// SPDX-License-Identifier: Apache-2.0
//
// ImageOutput: an image's bytes to its file, in order and in large pieces. One thread at a time.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

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
    while (!bytes.empty()) {
      const ssize_t count = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) {
        continue;
      }
      if (count <= 0) {
        return ErrnoStatus(count < 0 ? errno : EIO, "write image");
      }
      bytes.remove_prefix(static_cast<size_t>(count));
      offset += static_cast<uint64_t>(count);
    }
    return OkStatus();
  }

 private:
  static constexpr size_t kBufferBytes = size_t{1} << 20;
  int fd_;
  uint64_t flushed_ = 0;
  std::string buffer_;
};

}  // namespace strata
