// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>

#include "client/image/image_manifest.h"
#include "client/image/image_origin.h"
#include "snapshotters/base/mutex.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kCancelPoll{100};
constexpr size_t kPieceBytes = size_t{256} << 10;
// Of one blob, received and not yet taken: then the network waits for the disk.
constexpr size_t kMostQueued = size_t{16} << 20;

// Between the I/O thread and the one that fetches. The HttpClient is a puller's own: when its I/O
// thread waits here, nothing but other layers of its pulls waits with it.
class ByteQueue : public RangeSink {
 public:
  bool OnData(uint64_t /*offset*/, std::string_view bytes) override {
    MutexLock lock(mutex_);
    while (queued_ >= kMostQueued && !stopped_) {
      changed_.Wait(mutex_);
    }
    if (pieces_.empty() || pieces_.back().size() + bytes.size() > kPieceBytes) {
      pieces_.emplace_back().reserve(kPieceBytes);
    }
    pieces_.back() += bytes;
    queued_ += bytes.size();
    changed_.SignalAll();
    return !stopped_;
  }

  void OnDone(Status status) override {
    const MutexLock lock(mutex_);
    done_ = true;
    status_ = std::move(status);
    changed_.SignalAll();
  }

  // "" at the end.
  StatusOr<std::string> Take(const CallContext& call) {
    MutexLock lock(mutex_);
    while (pieces_.empty() && !done_) {
      STRATA_RETURN_IF_ERROR(call.Check());
      (void)changed_.WaitUntil(mutex_, steady_clock::now() + kCancelPoll);
    }
    if (pieces_.empty()) {
      return status_.ok() ? StatusOr<std::string>(std::string()) : StatusOr<std::string>(status_);
    }
    std::string piece = std::move(pieces_.front());
    pieces_.pop_front();
    queued_ -= piece.size();
    changed_.SignalAll();
    return piece;
  }

  // Nobody takes any more.
  void Stop() {
    const MutexLock lock(mutex_);
    stopped_ = true;
    changed_.SignalAll();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::deque<std::string> pieces_ ABSL_GUARDED_BY(mutex_);
  size_t queued_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  Status status_ ABSL_GUARDED_BY(mutex_);
};

struct TailResult {
  Mutex mutex;
  CondVar changed;
  bool done ABSL_GUARDED_BY(mutex) = false;
  StatusOr<BlobTail> tail ABSL_GUARDED_BY(mutex) = MakeStatus(StatusCode::kUnavailable, "");
};

class RegistryOrigin : public ImageOrigin {
 public:
  RegistryOrigin(BlobClient& client, Reference reference)
      : client_(client), reference_(std::move(reference)) {}

  StatusOr<std::string> FetchTop(const CallContext& call, Deadline deadline) override {
    return Manifest(call, reference_.digest.empty() ? reference_.tag : reference_.digest,
                    /*accepts_index=*/true, deadline);
  }
  StatusOr<std::string> FetchManifest(const CallContext& call, const Descriptor& manifest,
                                      Deadline deadline) override {
    return Manifest(call, manifest.digest, /*accepts_index=*/true, deadline);
  }
  Status FetchBlob(const CallContext& call, const Descriptor& blob,
                   const std::vector<std::string>& urls, uint64_t offset, Deadline deadline,
                   const Receiver& receiver) override;

 private:
  StatusOr<std::string> Manifest(const CallContext& call, const std::string& which,
                                 bool accepts_index, Deadline deadline);

  BlobClient& client_;
  const Reference reference_;
};

StatusOr<std::string> RegistryOrigin::Manifest(const CallContext& call, const std::string& which,
                                               bool accepts_index, Deadline deadline) {
  const auto result = std::make_shared<TailResult>();
  client_.Open({.reference = reference_, .manifest = which, .accepts_index = accepts_index})
      ->FetchTail(kMostManifestBytes, deadline, [result](StatusOr<BlobTail> tail) {
        const MutexLock lock(result->mutex);
        result->tail = std::move(tail);
        result->done = true;
        result->changed.SignalAll();
      });
  MutexLock lock(result->mutex);
  while (!result->done) {
    STRATA_RETURN_IF_ERROR(call.Check());
    (void)result->changed.WaitUntil(result->mutex, steady_clock::now() + kCancelPoll);
  }
  STRATA_RETURN_IF_ERROR(
      Annotate(result->tail.status(), "manifest of '" + ShowReference(reference_) + "'"));
  if (result->tail->blob_size > result->tail->bytes.size()) {
    return MakeStatus(StatusCode::kDataLoss, "manifest of '" + ShowReference(reference_) +
                                                 "' has more than " +
                                                 std::to_string(kMostManifestBytes) + " bytes");
  }
  return std::move(result->tail->bytes);
}

Status RegistryOrigin::FetchBlob(const CallContext& call, const Descriptor& blob,
                                 const std::vector<std::string>& urls, uint64_t offset,
                                 Deadline deadline, const Receiver& receiver) {
  const auto queue = std::make_shared<ByteQueue>();
  client_
      .Open({.reference = reference_,
             .digest = blob.digest,
             .is_long = true,
             .size = blob.size,
             .urls = urls})
      ->FetchRange(offset, blob.size - offset, FetchClass::kOnDemand, deadline, queue);
  Status status;
  while (status.ok()) {
    StatusOr<std::string> piece = queue->Take(call);
    if (piece.ok() && piece->empty()) {
      return OkStatus();
    }
    status = piece.ok() ? receiver(*piece) : piece.status();
  }
  queue->Stop();
  return Annotate(status, "blob '" + blob.digest + "'");
}

}  // namespace

std::unique_ptr<ImageOrigin> NewRegistryOrigin(BlobClient& client, const Reference& reference) {
  return std::make_unique<RegistryOrigin>(client, reference);
}

}  // namespace strata
