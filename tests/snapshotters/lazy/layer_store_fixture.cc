// SPDX-License-Identifier: Apache-2.0
#include "tests/snapshotters/lazy/layer_store_fixture.h"

#include <sys/stat.h>

#include <thread>

#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

constexpr std::chrono::seconds kGenerous{60};
constexpr std::chrono::milliseconds kPause{1};

}  // namespace

bool Eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + kGenerous;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) {
      return false;
    }
    std::this_thread::sleep_for(kPause);
  }
  return true;
}

FakeRegistry::FakeRegistry() : server_([this](const ServerRequest& r) { return Answer(r); }) {}

void FakeRegistry::PutAs(const std::string& digest, const std::string& blob) {
  const std::lock_guard lock(mutex_);
  content_["/blobs/" + digest] = blob;
}

void FakeRegistry::PutManifest(const std::string& tag, const std::string& manifest) {
  const std::lock_guard lock(mutex_);
  content_["/manifests/" + tag] = manifest;
}

void FakeRegistry::Intercept(
    std::function<std::optional<ServerReply>(const ServerRequest&)> answer) {
  const std::lock_guard lock(mutex_);
  intercept_ = std::move(answer);
}

void FakeRegistry::Hold() {
  const std::lock_guard lock(mutex_);
  held_ = true;
}

void FakeRegistry::Release() {
  const std::lock_guard lock(mutex_);
  held_ = false;
  released_.notify_all();
}

ServerReply FakeRegistry::Answer(const ServerRequest& request) {
  if (latency_ms_ > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(latency_ms_));
  }
  std::unique_lock lock(mutex_);
  released_.wait(lock, [this] { return !held_; });
  if (intercept_) {
    if (auto reply = intercept_(request)) {
      return *reply;
    }
  }
  for (const auto& [end, content] : content_) {
    if (request.target.ends_with(end)) {
      return end.starts_with("/manifests/") ? ServerReply{.body = content}
                                            : HttpServer::Range(request, content);
    }
  }
  return {.status = 404};
}

void FakeFillLayer::Complete() {
  for (uint32_t chunk = 0; chunk < image_->extents().chunks(); ++chunk) {
    image_->extents().Set(chunk);
  }
  EXPECT_THAT(image_->Persist(), IsOk());
  on_complete_(*this);
}

std::shared_ptr<FillLayer> FakeFiller::Add(std::shared_ptr<LayerImage> image,
                                           std::shared_ptr<Blob> blob,
                                           CompleteCallback on_complete) {
  const uint64_t number = image->number();
  auto layer =
      std::make_shared<FakeFillLayer>(std::move(image), std::move(blob), std::move(on_complete));
  const std::lock_guard lock(mutex_);
  layers_[number] = layer;
  return layer;
}

void FakeFiller::Want(const std::shared_ptr<FillLayer>& /*layer*/, uint64_t /*offset*/,
                      uint64_t /*bytes*/, Callback callback) {
  callback(MakeStatus(StatusCode::kUnavailable, "fake"), nullptr);
}

void FakeFiller::Prefetch(const std::shared_ptr<FillLayer>& layer, uint64_t blob_end) {
  const std::lock_guard lock(mutex_);
  prefetched_.emplace_back(layer->image().number(), blob_end);
}

void FakeFiller::FetchAll(const std::shared_ptr<FillLayer>& layer) {
  const std::lock_guard lock(mutex_);
  fetched_.push_back(layer->image().number());
}

void FakeFiller::Forget(const std::shared_ptr<FillLayer>& layer) {
  const std::lock_guard lock(mutex_);
  forgotten_.push_back(layer->image().number());
}

std::vector<FakeFiller::Call> FakeFiller::prefetched() {
  const std::lock_guard lock(mutex_);
  return prefetched_;
}

std::vector<uint64_t> FakeFiller::fetched() {
  const std::lock_guard lock(mutex_);
  return fetched_;
}

std::vector<uint64_t> FakeFiller::forgotten() {
  const std::lock_guard lock(mutex_);
  return forgotten_;
}

std::shared_ptr<FakeFillLayer> FakeFiller::layer(uint64_t number) {
  const std::lock_guard lock(mutex_);
  return layers_[number];
}

void FakePresenter::Note(const std::string& call) {
  const std::lock_guard lock(mutex_);
  calls_.push_back(call);
}

Status FakePresenter::Show(const std::shared_ptr<FillLayer>& layer, const std::string& target) {
  if (look) {
    look(layer->image().number());
  }
  Note("show " + std::to_string(layer->image().number()));
  const std::lock_guard lock(mutex_);
  if (failure_.ok()) {
    shown_.push_back(target);
  }
  return failure_;
}

bool FakePresenter::Resume(const std::shared_ptr<FillLayer>& layer, const FoundMount* top) {
  const uint64_t number = layer->image().number();
  Note("resume " + std::to_string(number) + " " + (top == nullptr ? "-" : top->type));
  const std::lock_guard lock(mutex_);
  return taken_over_.contains(number);
}

void FakePresenter::Complete(FillLayer& layer) {
  Note("complete " + std::to_string(layer.image().number()));
}

bool FakePresenter::Withdraw(uint64_t layer_number) {
  if (look) {
    look(layer_number);
  }
  Note("withdraw " + std::to_string(layer_number));
  const std::lock_guard lock(mutex_);
  withdrawn_.push_back(layer_number);
  return !in_use_.contains(layer_number);
}

std::vector<std::string> FakePresenter::shown() {
  const std::lock_guard lock(mutex_);
  return shown_;
}

std::vector<uint64_t> FakePresenter::withdrawn() {
  const std::lock_guard lock(mutex_);
  return withdrawn_;
}

std::vector<std::string> FakePresenter::calls() {
  const std::lock_guard lock(mutex_);
  return calls_;
}

void FakePresenter::TakeOver(uint64_t number) {
  const std::lock_guard lock(mutex_);
  taken_over_.insert(number);
}

void FakePresenter::SetInUse(uint64_t number, bool in_use) {
  const std::lock_guard lock(mutex_);
  if (in_use) {
    in_use_.insert(number);
  } else {
    in_use_.erase(number);
  }
}

void FakePresenter::FailWith(const Status& status) {
  const std::lock_guard lock(mutex_);
  failure_ = status;
}

LayerStoreFixture::LayerStoreFixture() {
  http_ = *HttpClient::Create({});
  const BlobClient::Options blob_options{.retry = {.attempts = 2,
                                                   .first_delay = std::chrono::milliseconds(1),
                                                   .ceiling = std::chrono::milliseconds(2)},
                                         .random = [] { return 0.5; }};
  blobs_ = *BlobClient::Create(blob_options, credentials_, *http_);
  options_.root = root_.Join("state");
  options_.resolve_timeout = kGenerous;
  options_.erofs_when_complete = false;
  options_.clock = &clock_;
  options_.referenced = [this]() -> StatusOr<std::set<uint64_t>> {
    const std::lock_guard lock(referenced_mutex_);
    return referenced_;
  };
}

LayerStoreFixture::~LayerStoreFixture() {
  registry_.Release();
  store_.reset();
  http_.reset();
}

void LayerStoreFixture::Start() {
  auto opened =
      LayerStore::Open(options_, *blobs_, filler_,
                       {.fuse = &presenter_, .filled = filled_.get(), .show_filled = show_filled_});
  ASSERT_THAT(opened, IsOk());
  store_ = *std::move(opened);
}

BuiltLayer LayerStoreFixture::Add(const std::string& name, const LayerBuildOptions& options) {
  BuiltLayer layer = BuildLayer({{.name = "d", .type = "dir", .mode = 0755},
                                 {.name = "d/" + name, .content = "content of " + name}},
                                options);
  registry_.Put(layer.blob);
  return layer;
}

LayerRequest LayerStoreFixture::Ask(const BuiltLayer& layer) const {
  return {.reference = registry_.Image(), .digest = layer.digest, .annotations = layer.annotations};
}

uint64_t LayerStoreFixture::GetNumber(const BuiltLayer& layer) {
  const auto use = store_->Get(Ask(layer));
  EXPECT_THAT(use, IsOk());
  return use.ok() ? (*use)->number() : 0;
}

bool LayerStoreFixture::OnDisk(uint64_t number) const {
  struct stat found {};
  return ::stat((options_.root + "/layers/" + std::to_string(number)).c_str(), &found) == 0;
}

std::vector<LayerStore::Row> LayerStoreFixture::Fallbacks() {
  std::vector<LayerStore::Row> rows = store_->List();
  std::erase_if(rows, [](const LayerStore::Row& row) { return row.number != 0; });
  return rows;
}

}  // namespace strata::testing
