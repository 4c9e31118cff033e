// SPDX-License-Identifier: Apache-2.0
//
// LayerStream: the tar inside a layer's blob, decoded by a thread of its own while the blob comes
// in: a few MiB ahead of its reader and no more. One reader.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <thread>

#include "client/image/incoming_blob.h"
#include "snapshotters/base/digest.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

class LayerStream {
 public:
  // `call` and `blob` must outlive this. gzip (any number of members), zstd (frames) or nothing, by
  // the first bytes, as containerd has it: media types are not always true.
  LayerStream(const CallContext& call, IncomingBlob& blob, const std::string& diff_id);
  // Ends the thread.
  ~LayerStream();
  LayerStream(const LayerStream&) = delete;
  LayerStream& operator=(const LayerStream&) = delete;

  // 0 at the end; the blob has been verified then, the diff id is for Digest to tell. DataLoss: it
  // does not decode. Else the errors of IncomingBlob::Read.
  StatusOr<size_t> Read(char* buffer, size_t size);
  // Of the decoded bytes, once Read has returned 0.
  [[nodiscard]] const std::string& digest() const { return digest_; }

 private:
  struct Block {
    std::unique_ptr<char[]> bytes;
    size_t size = 0;
  };

  void Decode();
  Status DecodeAll();
  // False: nobody reads any more.
  bool Push(Block block);

  const CallContext& call_;
  IncomingBlob& blob_;
  DigestStream hash_;
  std::string digest_;

  Block current_;
  size_t taken_ = 0;

  Mutex mutex_;
  CondVar changed_;
  std::deque<Block> ready_ ABSL_GUARDED_BY(mutex_);
  std::deque<Block> spare_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // uses all of the above
};

}  // namespace strata
