// SPDX-License-Identifier: Apache-2.0
//
// A LayerStore on a registry of the test's own, with a filler and a presenter that only write down
// what they are told.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/lazy/fill_plan.h"
#include "snapshotters/lazy/layer_store.h"
#include "tests/support/http_server.h"
#include "tests/support/lazy_layer_builder.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {

// Until `condition` holds; false after a generous time.
bool Eventually(const std::function<bool()>& condition);

class AnyoneCredentials : public CredentialSource {
 public:
  StatusOr<std::optional<Credential>> Find(std::string_view /*host*/,
                                           const Reference& /*reference*/) override {
    return std::nullopt;
  }
};

// Blobs and manifests over HTTP. `intercept` may answer first; `Hold` lets requests wait.
class FakeRegistry {
 public:
  FakeRegistry();
  ~FakeRegistry() { Release(); }

  void Put(const std::string& blob) { PutAs(DigestOf(blob), blob); }
  void PutAs(const std::string& digest, const std::string& blob);
  void PutManifest(const std::string& tag, const std::string& manifest);
  void Intercept(std::function<std::optional<ServerReply>(const ServerRequest&)> answer);
  void Delay(std::chrono::milliseconds latency) { latency_ms_ = latency.count(); }
  void Hold();
  void Release();

  [[nodiscard]] std::string Image(const std::string& tag = "1") const {
    return server_.host() + "/a/b:" + tag;
  }
  std::vector<ServerRequest> requests() { return server_.requests(); }

 private:
  ServerReply Answer(const ServerRequest& request);

  std::mutex mutex_;
  std::condition_variable released_;
  bool held_ = false;
  std::map<std::string, std::string> content_;  // by the end of the path
  std::function<std::optional<ServerReply>(const ServerRequest&)> intercept_;
  std::atomic<int64_t> latency_ms_{0};
  HttpServer server_;  // last: it uses the others
};

class FakeFillLayer : public FillLayer {
 public:
  FakeFillLayer(std::shared_ptr<LayerImage> image, std::shared_ptr<Blob> blob,
                Filler::CompleteCallback on_complete)
      : image_(std::move(image)), blob_(std::move(blob)), on_complete_(std::move(on_complete)) {}
  LayerImage& image() override { return *image_; }
  [[nodiscard]] State state() const override {
    return {.present_chunks = image_->extents().present(), .last_error = last_error};
  }
  // Every chunk becomes present (with the bytes that the hole has).
  void Complete();

  Status last_error;

 private:
  const std::shared_ptr<LayerImage> image_;
  const std::shared_ptr<Blob> blob_;
  const Filler::CompleteCallback on_complete_;
};

class FakeFiller : public Filler {
 public:
  std::shared_ptr<FillLayer> Add(std::shared_ptr<LayerImage> image, std::shared_ptr<Blob> blob,
                                 CompleteCallback on_complete) override;
  void Want(const std::shared_ptr<FillLayer>& layer, uint64_t offset, uint64_t bytes,
            Callback callback) override;
  void WantOnDisk(const std::shared_ptr<FillLayer>& layer, uint64_t offset, uint64_t bytes,
                  Callback callback) override {
    Want(layer, offset, bytes, std::move(callback));
  }
  bool IsPresent(FillLayer& layer, uint64_t offset, uint64_t bytes) override {
    const LayerImage& image = layer.image();
    const ChunkRange range = ChunksIn(image.chunks(), offset, bytes);
    return image.extents().FirstAbsent(range.first, range.end) == range.end;
  }
  void Prefetch(const std::shared_ptr<FillLayer>& layer, uint64_t blob_end) override;
  void FetchAll(const std::shared_ptr<FillLayer>& layer) override;
  void Nudge() override {}
  void Forget(const std::shared_ptr<FillLayer>& layer) override;
  [[nodiscard]] Counters counters() const override { return {}; }

  using Call = std::pair<uint64_t, uint64_t>;  // layer, argument
  std::vector<Call> prefetched();
  std::vector<uint64_t> fetched();
  std::vector<uint64_t> forgotten();
  std::shared_ptr<FakeFillLayer> layer(uint64_t number);

 private:
  std::mutex mutex_;
  std::map<uint64_t, std::shared_ptr<FakeFillLayer>> layers_;
  std::vector<Call> prefetched_;
  std::vector<uint64_t> fetched_;
  std::vector<uint64_t> forgotten_;
};

class FakePresenter : public Presenter {
 public:
  explicit FakePresenter(std::string name = "fake") : name_(std::move(name)) {}

  [[nodiscard]] std::string_view name() const override { return name_; }
  Status Show(const std::shared_ptr<FillLayer>& layer, const std::string& target) override;
  bool Resume(const std::shared_ptr<FillLayer>& layer, const FoundMount* top) override;
  void Settled() override { Note("settled"); }
  void Complete(FillLayer& layer) override;
  bool Withdraw(uint64_t layer_number) override;
  [[nodiscard]] bool stays() const override { return stays_; }

  std::vector<std::string> shown();  // targets
  std::vector<uint64_t> withdrawn();
  // "show 1", "resume 1 tmpfs", "settled", "complete 1", "withdraw 1", in their order.
  std::vector<std::string> calls();
  void FailWith(const Status& status);
  // What Resume and Withdraw answer about the layer.
  void TakeOver(uint64_t number);
  void SetInUse(uint64_t number, bool in_use);
  void SetStays() { stays_ = true; }
  // Called by Show and Withdraw with the layer's number.
  std::function<void(uint64_t)> look;

 private:
  void Note(const std::string& call);

  const std::string name_;
  std::atomic<bool> stays_{false};
  std::mutex mutex_;
  std::vector<std::string> shown_;
  std::vector<uint64_t> withdrawn_;
  std::vector<std::string> calls_;
  std::set<uint64_t> taken_over_;
  std::set<uint64_t> in_use_;
  Status failure_;
};

class StepClock : public Clock {
 public:
  TimeNs Now() override { return now; }
  std::atomic<TimeNs> now{1'700'000'000'000'000'000};
};

class LayerStoreFixture : public ::testing::Test {
 protected:
  LayerStoreFixture();
  ~LayerStoreFixture() override;

  void Start();
  void Stop() { store_.reset(); }

  // A layer with one file of the name, in the registry.
  BuiltLayer Add(const std::string& name, const LayerBuildOptions& options = {});
  [[nodiscard]] LayerRequest Ask(const BuiltLayer& layer) const;
  // Asks, and lets the layer go.
  uint64_t GetNumber(const BuiltLayer& layer);
  Status GetStatus(const LayerRequest& request) { return store_->Get(request).status(); }
  [[nodiscard]] bool OnDisk(uint64_t number) const;
  [[nodiscard]] std::vector<LayerStore::Row> Fallbacks();

  TempDir root_;
  FakeRegistry registry_;
  AnyoneCredentials credentials_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<BlobClient> blobs_;
  FakePresenter presenter_;
  std::unique_ptr<FakePresenter> filled_;  // none, unless a test makes one
  bool show_filled_ = true;
  FakeFiller filler_;
  StepClock clock_;
  std::mutex referenced_mutex_;
  std::set<uint64_t> referenced_;
  LayerStoreOptions options_;
  std::unique_ptr<LayerStore> store_;
};

}  // namespace strata::testing
