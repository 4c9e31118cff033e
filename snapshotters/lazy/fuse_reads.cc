// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fuse_reads.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "snapshotters/base/log.h"
#include "snapshotters/lazy/file_checksum.h"

namespace strata {
namespace {

// Below, two system calls for the pipe cost more than the copy.
constexpr size_t kSpliceBytes = size_t{64} << 10;

// A short reply would be the end of the file to the kernel, which fills the page with zeros.
bool HasBytes(int fd, uint64_t end) {
  struct stat attributes {};
  return ::fstat(fd, &attributes) == 0 && static_cast<uint64_t>(attributes.st_size) >= end;
}

}  // namespace

std::optional<uint64_t> FuseReads::Admit(fuse_req_t request) {
  const MutexLock lock(mutex_);
  if (closed_) {
    return std::nullopt;
  }
  waiting_.emplace(next_ticket_, request);
  return next_ticket_++;
}

std::optional<fuse_req_t> FuseReads::Claim(uint64_t ticket) {
  const MutexLock lock(mutex_);
  const auto found = waiting_.find(ticket);
  if (found == waiting_.end()) {
    return std::nullopt;
  }
  const fuse_req_t request = found->second;
  waiting_.erase(found);
  ++under_way_;
  return request;
}

void FuseReads::Settle() {
  const MutexLock lock(mutex_);
  if (--under_way_ == 0) {
    settled_.SignalAll();
  }
}

// The reader is told EIO and no more; the reason is for the operator.
void FuseReads::Log(const Status& status) {
  const int64_t now = std::chrono::steady_clock::now().time_since_epoch() / std::chrono::seconds(1);
  if (last_log_.exchange(now, std::memory_order_relaxed) != now) {
    LogError("a read of a lazy layer fails",
             {{"error", std::string(StatusMessage(status))},
              {"failed so far", std::to_string(counts_->errors.load(std::memory_order_relaxed))}});
  }
}

void FuseReads::Fail(fuse_req_t request) {
  counts_->errors.fetch_add(1, std::memory_order_relaxed);
  (void)::fuse_reply_err(request, EIO);  // fails when the reader is gone
}

void FuseReads::Reject(fuse_req_t request) {
  if (has_successor_) {
    ::fuse_reply_none(request);
  } else {
    Fail(request);
  }
}

void FuseReads::Read(Filler& filler, const std::shared_ptr<FillLayer>& layer, uint64_t offset,
                     size_t bytes, fuse_req_t request) {
  const std::optional<uint64_t> ticket = Admit(request);
  if (!ticket.has_value()) {
    Reject(request);
    return;
  }
  filler.Want(layer, offset, bytes,
              [self = shared_from_this(), layer, offset, bytes, ticket = *ticket,
               thread = std::this_thread::get_id()](const Status& status,
                                                    const std::shared_ptr<const HeldBytes>& held) {
                const std::optional<fuse_req_t> claimed = self->Claim(ticket);
                if (!claimed.has_value()) {
                  return;
                }
                if (status.ok()) {
                  // libfuse keeps a pipe for each thread that splices, and closes it when the
                  // thread ends: only the session's own end before the session does.
                  self->Reply(*claimed, layer->image().image_fd(), offset, bytes, held.get(),
                              /*may_splice=*/thread == std::this_thread::get_id());
                } else {
                  self->Fail(*claimed);
                  self->Log(status);
                }
                self->Settle();
              });
}

void FuseReads::Reply(fuse_req_t request, int image_fd, uint64_t offset, size_t bytes,
                      const HeldBytes* held, bool may_splice) {
  if (held == nullptr && may_splice && bytes >= kSpliceBytes &&
      HasBytes(image_fd, offset + bytes)) {
    fuse_bufvec buffers{};
    buffers.count = 1;
    buffers.buf[0].size = bytes;
    buffers.buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
    buffers.buf[0].fd = image_fd;
    buffers.buf[0].pos = static_cast<off_t>(offset);
    counts_->read_bytes.fetch_add(bytes, std::memory_order_relaxed);
    (void)::fuse_reply_data(request, &buffers, fuse_buf_copy_flags{});  // errors reach the reader
    return;
  }
  std::vector<uint8_t> copy(bytes);
  const bool complete =
      (held != nullptr ? held->Read(image_fd, offset, copy) : ReadExactlyAt(image_fd, offset, copy))
          .ok();
  if (!complete) {
    Fail(request);
    return;
  }
  counts_->read_bytes.fetch_add(bytes, std::memory_order_relaxed);
  (void)::fuse_reply_buf(request, reinterpret_cast<const char*>(copy.data()), copy.size());
}

void FuseReads::Close(bool has_successor) {
  std::unordered_map<uint64_t, fuse_req_t> waiting;
  has_successor_ = has_successor;
  {
    const MutexLock lock(mutex_);
    closed_ = true;
    waiting.swap(waiting_);
  }
  for (const auto& [ticket, request] : waiting) {
    Reject(request);
  }
  const MutexLock lock(mutex_);
  while (under_way_ != 0) {
    settled_.Wait(mutex_);
  }
}

}  // namespace strata
