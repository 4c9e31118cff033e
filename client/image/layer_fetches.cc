// SPDX-License-Identifier: Apache-2.0
#include "client/image/layer_fetches.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// For a blob that somebody else is fetching.
constexpr milliseconds kPoll{50};
// So often is a reader of a long transfer told.
constexpr uint64_t kTellBytes = uint64_t{256} << 10;

Status WaitForOther(const CallContext& call, Deadline deadline) {
  STRATA_RETURN_IF_ERROR(call.Check());
  if (steady_clock::now() >= deadline) {
    return MakeStatus(StatusCode::kDeadlineExceeded, "somebody else is fetching the blob");
  }
  std::this_thread::sleep_for(kPoll);
  return OkStatus();
}

class Fetch {
 public:
  Fetch(const CallContext& call, const FetchContext& context, const ImageLayer& layer,
        IncomingBlob& blob)
      : call_(call), context_(context), layer_(layer), blob_(blob) {}

  // Aborted: what there was from before is not part of the blob, and is gone.
  Status Run();

 private:
  Status Receive(BlobWriter& writer);
  void Tell(PullProgress::Step step, uint64_t done) {
    context_.progress.Tell(layer_.blob.digest, step, done, layer_.blob.size);
  }

  const CallContext& call_;
  const FetchContext& context_;
  const ImageLayer& layer_;
  IncomingBlob& blob_;
};

Status Fetch::Run() {
  StatusOr<std::unique_ptr<BlobWriter>> writer = context_.content.Write(layer_.blob);
  while (writer.status().code() == StatusCode::kUnavailable) {
    STRATA_RETURN_IF_ERROR(WaitForOther(call_, context_.deadline));
    writer = context_.content.Write(layer_.blob);
  }
  if (writer.status().code() == StatusCode::kAlreadyExists) {
    STRATA_ASSIGN_OR_RETURN(UniqueFd file, context_.content.OpenBlob(layer_.blob.digest));
    blob_.Begin(std::move(file), layer_.blob.size);
    Tell(PullProgress::Step::kPresent, layer_.blob.size);
    return OkStatus();
  }
  STRATA_RETURN_IF_ERROR(writer.status());
  const bool resumed = (*writer)->offset() > 0;
  STRATA_ASSIGN_OR_RETURN(UniqueFd file, (*writer)->OpenForReading());
  blob_.Begin(std::move(file), (*writer)->offset());
  Tell(PullProgress::Step::kFetching, (*writer)->offset());
  Status status = Receive(**writer);
  if (status.code() == StatusCode::kUnimplemented && resumed) {
    STRATA_RETURN_IF_ERROR((*writer)->Reset());
    return MakeStatus(StatusCode::kAborted, StatusMessage(status));  // a server without ranges
  }
  STRATA_RETURN_IF_ERROR(status);
  status = (*writer)->Commit();
  if (status.code() == StatusCode::kDataLoss && resumed) {
    return MakeStatus(StatusCode::kAborted, StatusMessage(status));
  }
  STRATA_RETURN_IF_ERROR(status);
  Tell(PullProgress::Step::kWaiting, layer_.blob.size);
  return OkStatus();
}

// While bytes come, a connection that breaks is made again.
Status Fetch::Receive(BlobWriter& writer) {
  uint64_t told = writer.offset();
  while (true) {
    const uint64_t before = writer.offset();
    Status status = context_.origin.FetchBlob(call_, layer_.blob, layer_.urls, before,
                                              context_.deadline, [&](std::string_view bytes) {
                                                STRATA_RETURN_IF_ERROR(writer.Write(bytes));
                                                blob_.Advance(writer.offset());
                                                if (writer.offset() - told >= kTellBytes) {
                                                  told = writer.offset();
                                                  Tell(PullProgress::Step::kFetching, told);
                                                }
                                                return OkStatus();
                                              });
    if (status.code() != StatusCode::kUnavailable || writer.offset() == before) {
      return status;
    }
  }
}

}  // namespace

void ProgressTeller::Tell(std::string_view blob, PullProgress::Step step, uint64_t done,
                          uint64_t total) {
  if (progress_ != nullptr) {
    const MutexLock lock(mutex_);
    progress_->OnStep(blob, step, done, total);
  }
}

Status FetchBlobInto(const CallContext& call, const FetchContext& context, const ImageLayer& layer,
                     IncomingBlob& blob) {
  Fetch fetch(call, context, layer, blob);
  Status status = fetch.Run();
  if (status.code() == StatusCode::kAborted) {
    blob.Restart();
    status = fetch.Run();
  }
  blob.End(status);
  return status;
}

void LayerFetches::Start(const std::vector<ImageLayer>& layers, int parallel) {
  for (const ImageLayer& layer : layers) {
    const auto [blob, is_new] = blobs_.try_emplace(layer.blob.digest);
    if (is_new) {
      blob->second = std::make_unique<IncomingBlob>();
      queue_.push_back(layer);
      context_.progress.Tell(layer.blob.digest, PullProgress::Step::kWaiting, 0, layer.blob.size);
    }
  }
  const auto count = std::min(static_cast<size_t>(std::max(parallel, 1)), queue_.size());
  for (size_t i = 0; i < count; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
}

void LayerFetches::Work() {
  while (true) {
    size_t mine = 0;
    {
      const MutexLock lock(mutex_);
      if (next_ == queue_.size()) {
        return;
      }
      mine = next_++;
    }
    const ImageLayer& layer = queue_[mine];
    // Its readers are told; a failure of one layer ends the pull, which ends the others.
    (void)FetchBlobInto(stop_, context_, layer, *blobs_.at(layer.blob.digest));
  }
}

void LayerFetches::Cancel() {
  stop_.Cancel();
  for (std::thread& thread : threads_) {
    thread.join();
  }
  threads_.clear();
}

}  // namespace strata
