// SPDX-License-Identifier: Apache-2.0
//
// Layers to be filled, and a blob whose answers the test gives itself. For tests of the filler.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/layer_image.h"
#include "snapshotters/registry/blob_client.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {

constexpr std::chrono::seconds kGenerous{60};

// Polls. False: it did not come within kGenerous.
bool Eventually(const std::function<bool()>& condition);

struct TestFile {
  uint64_t bytes = 0;
  uint64_t chunk_bytes = 0;
};

// An eStargz layer, one gzip member a chunk, and its image on disk.
class TestLayer {
 public:
  explicit TestLayer(const std::vector<TestFile>& files) : TestLayer(files, "") {}
  // In `directory`, instead of one of its own.
  TestLayer(const std::vector<TestFile>& files, const std::string& directory);

  // As a process that begins sees it.
  [[nodiscard]] std::shared_ptr<LayerImage> Open() const;
  [[nodiscard]] const std::string& blob() const { return blob_; }
  // Of all spans.
  [[nodiscard]] uint64_t span_bytes() const { return span_bytes_; }
  // The blob's bytes of a span.
  [[nodiscard]] std::string Member(const LayerImage& image, uint32_t span) const;
  // What the image holds, once it is filled, in the chunk.
  [[nodiscard]] const std::string& ChunkContent(uint32_t chunk) const { return chunks_[chunk]; }
  [[nodiscard]] const std::string& digest() const { return digest_; }

 private:
  const TempDir own_;
  const std::string directory_;
  std::string blob_;
  std::string digest_;
  uint64_t span_bytes_ = 0;
  std::vector<std::string> chunks_;  // in the order of the image, which is that of the blob
};

std::string ReadImage(const LayerImage& image, uint64_t offset, uint64_t bytes);

class FakeBlob : public Blob {
 public:
  struct Request {
    uint64_t offset = 0;
    uint64_t bytes = 0;
    FetchClass fetch_class = FetchClass::kOnDemand;
    std::shared_ptr<RangeSink> sink;
    std::chrono::steady_clock::time_point at;
    bool answered = false;
  };

  explicit FakeBlob(std::string content) : content_(std::move(content)) {}
  ~FakeBlob() override;

  void FetchTail(uint64_t bytes, Deadline deadline,
                 std::function<void(StatusOr<BlobTail>)> callback) override;
  void FetchRange(uint64_t offset, uint64_t length, FetchClass fetch_class, Deadline deadline,
                  std::shared_ptr<RangeSink> sink) override;

  [[nodiscard]] std::vector<Request> requests();
  [[nodiscard]] size_t count() { return requests().size(); }
  // Whether there are `count` requests, now or later.
  bool WaitFor(size_t count);

  // All of them on the calling thread, which plays the one of HTTP.
  void Answer(size_t request);
  void AnswerWith(size_t request, const std::string& bytes, Status status = OkStatus());
  // A piece of the answer, which goes on; what the receiver said.
  bool Deliver(size_t request, uint64_t offset, const std::string& bytes);
  void Finish(size_t request, Status status);
  void Fail(size_t request, StatusCode code);
  // From now on a thread answers everything.
  void Serve();
  // Cancels what is not answered, as an HTTP client that ends; the filler may have ended before.
  void CancelAll();

 private:
  std::shared_ptr<RangeSink> Take(size_t request);

  const std::string content_;
  Mutex mutex_;
  std::vector<Request> requests_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread server_;
};

struct Answer {
  Status status;
  std::shared_ptr<const HeldBytes> held;
};

// A want and what came of it.
class Wanted {
 public:
  Wanted(Filler& filler, const std::shared_ptr<FillLayer>& layer, uint64_t offset, uint64_t bytes);
  // The same for a reader of the image itself.
  static Wanted OnDisk(Filler& filler, const std::shared_ptr<FillLayer>& layer, uint64_t offset,
                       uint64_t bytes);
  [[nodiscard]] bool ready() const;
  // Waits.
  const Answer& Get();

 private:
  Wanted() = default;
  [[nodiscard]] Filler::Callback Keep() const;

  std::shared_ptr<std::promise<Answer>> promise_ = std::make_shared<std::promise<Answer>>();
  std::shared_future<Answer> future_ = promise_->get_future().share();
  Answer late_;
};

// Wants again while the patience is over before it was tried to write; what then comes of it.
Status StatusOnceTried(const std::function<Wanted()>& want);

}  // namespace strata::testing
