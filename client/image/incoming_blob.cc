// SPDX-License-Identifier: Apache-2.0
#include "client/image/incoming_blob.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

namespace strata {
namespace {

constexpr std::chrono::milliseconds kCancelPoll{100};

}  // namespace

void IncomingBlob::Begin(UniqueFd file, uint64_t available) {
  const MutexLock lock(mutex_);
  file_ = std::move(file);
  available_ = available;
  began_ = true;
  changed_.SignalAll();
}

void IncomingBlob::Advance(uint64_t available) {
  const MutexLock lock(mutex_);
  available_ = available;
  changed_.SignalAll();
}

void IncomingBlob::Restart() {
  const MutexLock lock(mutex_);
  ++generation_;
  available_ = 0;
  began_ = false;
  changed_.SignalAll();
}

void IncomingBlob::End(Status status) {
  const MutexLock lock(mutex_);
  ended_ = true;
  status_ = std::move(status);
  changed_.SignalAll();
}

bool IncomingBlob::IsWhole() {
  const MutexLock lock(mutex_);
  return ended_ && status_.ok();
}

StatusOr<size_t> IncomingBlob::Read(const CallContext& call, int& generation, uint64_t offset,
                                    char* buffer, size_t size) {
  int file = -1;
  {
    MutexLock lock(mutex_);
    while (true) {
      STRATA_RETURN_IF_ERROR(call.Check());
      if (generation != generation_) {
        generation = generation_;
        return MakeStatus(StatusCode::kAborted, "the blob is fetched again");
      }
      if (ended_ && !status_.ok()) {
        return status_;
      }
      if (began_ && offset < available_) {
        break;
      }
      if (ended_) {
        return size_t{0};
      }
      (void)changed_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kCancelPoll);
    }
    size = static_cast<size_t>(std::min<uint64_t>(size, available_ - offset));
    file = file_.get();  // stays open: a later Begin is of another generation, which reads end with
  }
  const ssize_t count = ::pread(file, buffer, size, static_cast<off_t>(offset));
  if (count < 0) {
    return ErrnoStatus(errno, "read a blob");
  }
  if (count == 0) {
    return MakeStatus(StatusCode::kDataLoss, "a blob became shorter while it was read");
  }
  return static_cast<size_t>(count);
}

}  // namespace strata
