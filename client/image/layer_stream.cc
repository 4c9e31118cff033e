// SPDX-License-Identifier: Apache-2.0
#include "client/image/layer_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "client/image/layer_decoder.h"

namespace strata {
namespace {

constexpr size_t kBlockBytes = size_t{256} << 10;
// Ahead of the reader: what a layer that waits for its turn may have ready.
constexpr size_t kMostBlocks = 64;

}  // namespace

LayerStream::LayerStream(const CallContext& call, IncomingBlob& blob, const std::string& diff_id)
    : call_(call), blob_(blob), hash_(diff_id), thread_([this] { Decode(); }) {}

LayerStream::~LayerStream() {
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

bool LayerStream::Push(Block block) {
  MutexLock lock(mutex_);
  while (ready_.size() >= kMostBlocks && !stopped_) {
    changed_.Wait(mutex_);
  }
  if (!stopped_) {
    ready_.push_back(std::move(block));
    changed_.SignalAll();
  }
  return !stopped_;
}

void LayerStream::Decode() {
  Status status = DecodeAll();
  const MutexLock lock(mutex_);
  ended_ = true;
  status_ = std::move(status);
  changed_.SignalAll();
}

Status LayerStream::DecodeAll() {
  uint64_t offset = 0;
  int generation = 0;
  const ByteSource source = [&](char* buffer, size_t size) -> StatusOr<size_t> {
    {
      const MutexLock lock(mutex_);
      if (stopped_) {
        return MakeStatus(StatusCode::kCancelled, "nobody reads the layer");
      }
    }
    STRATA_ASSIGN_OR_RETURN(const size_t count,
                            blob_.Read(call_, generation, offset, buffer, size));
    offset += count;
    return count;
  };
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<LayerDecoder> decoder, OpenLayerDecoder(source));
  while (true) {
    Block block;
    {
      const MutexLock lock(mutex_);
      if (!spare_.empty()) {
        block = std::move(spare_.front());
        spare_.pop_front();
      }
    }
    if (block.bytes == nullptr) {
      block.bytes.reset(new char[kBlockBytes]);
    }
    STRATA_ASSIGN_OR_RETURN(block.size, decoder->Read(block.bytes.get(), kBlockBytes));
    if (block.size == 0) {
      digest_ = hash_.Finish();
      return OkStatus();
    }
    hash_.Update({block.bytes.get(), block.size});
    if (!Push(std::move(block))) {
      return MakeStatus(StatusCode::kCancelled, "nobody reads the layer");
    }
  }
}

StatusOr<size_t> LayerStream::Read(char* buffer, size_t size) {
  if (taken_ == current_.size) {
    MutexLock lock(mutex_);
    if (current_.bytes != nullptr) {
      spare_.push_back(std::move(current_));
      current_ = Block();
    }
    while (ready_.empty() && !ended_) {
      changed_.Wait(mutex_);  // the decoder looks at the call, and ends
    }
    if (ready_.empty()) {
      return status_.ok() ? StatusOr<size_t>(size_t{0}) : StatusOr<size_t>(status_);
    }
    current_ = std::move(ready_.front());
    ready_.pop_front();
    taken_ = 0;
    changed_.SignalAll();
  }
  const size_t count = std::min(size, current_.size - taken_);
  std::memcpy(buffer, current_.bytes.get() + taken_, count);
  taken_ += count;
  return count;
}

}  // namespace strata
