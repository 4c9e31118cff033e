// SPDX-License-Identifier: Apache-2.0
#include "services/stargz/layer_stack.h"

#include <fcntl.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "services/version.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/fuse_presenter.h"
#include "snapshotters/registry/credentials.h"
#include "snapshotters/registry/http_client.h"

namespace strata {
namespace {

// In the root: where the presenter has its mounts.
constexpr std::string_view kFuseFolder = "fuse";

// Stands where there is no presenter: no layer can be shown.
class NoPresenter final : public Presenter {
 public:
  explicit NoPresenter(Status why) : why_(std::move(why)) {}

  [[nodiscard]] std::string_view name() const override { return "none"; }
  Status Show(const std::shared_ptr<FillLayer>& /*layer*/, const std::string& /*target*/) override {
    return why_;
  }
  bool Withdraw(uint64_t /*layer_number*/) override { return true; }

 private:
  const Status why_;
};

class OpenStack final : public DaemonLayerStack {
 public:
  ~OpenStack() override {
    // Before the store goes: its filler may still ask it for space.
    const MutexLock lock(mutex_);
    asked_for_space_ = nullptr;
  }

  Status Begin(const StargzConfig& config, const LayerRoot& root) {
    STRATA_ASSIGN_OR_RETURN(
        http_, HttpClient::Create({.user_agent = "strata-stargz/" + std::string(kVersion)}));
    STRATA_ASSIGN_OR_RETURN(blobs_, BlobClient::Create(config.blobs, credentials_, *http_));
    STRATA_ASSIGN_OR_RETURN(filler_, Filler::Create(config.filler, [this] { MakeSpace(); }));
    STRATA_RETURN_IF_ERROR(StartPresenter(root));
    LayerStoreOptions layers = config.layers;
    layers.root = root.path;
    layers.user_xattr = root.user_xattr;
    layers.referenced = root.referenced;
    STRATA_ASSIGN_OR_RETURN(store_, LayerStore::Open(layers, *blobs_, *filler_, *presenter_));
    const MutexLock lock(mutex_);
    asked_for_space_ = store_.get();
    return OkStatus();
  }

  LayerStore& layers() override { return *store_; }
  std::vector<ControlLayer> ListLayers() override;
  std::vector<ControlCounter> Counters() override;

 private:
  Status StartPresenter(const LayerRoot& root);

  // The disk is full. Reclaim returns at once, so the lock is held for no I/O.
  void MakeSpace() {
    const MutexLock lock(mutex_);
    if (asked_for_space_ != nullptr) {
      asked_for_space_->Reclaim(/*all=*/true);
    }
  }

  Mutex mutex_;
  LayerStore* asked_for_space_ ABSL_GUARDED_BY(mutex_) = nullptr;

  // In the order of dependence: what is below uses what is above.
  DockerConfigCredentials credentials_{DockerConfigCredentials::DefaultPath()};
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<BlobClient> blobs_;
  std::unique_ptr<Filler> filler_;
  std::unique_ptr<Presenter> presenter_;
  FusePresenter* fuse_ = nullptr;  // the presenter, when it is one
  std::unique_ptr<LayerStore> store_;
};

Status OpenStack::StartPresenter(const LayerRoot& root) {
  const std::string directory = root.path + "/" + std::string(kFuseFolder);
  STRATA_RETURN_IF_ERROR(MakePath(directory, 0700));
  StatusOr<std::unique_ptr<FusePresenter>> fuse =
      FusePresenter::Start({.directory = directory}, *filler_);
  if (fuse.ok()) {
    fuse_ = fuse->get();
    presenter_ = *std::move(fuse);
    return OkStatus();
  }
  LogWarn("lazy layers cannot be shown here: all layers will be ordinary ones",
          {{"presenter", "fuse"}, {"error", std::string(StatusMessage(fuse.status()))}});
  presenter_ = std::make_unique<NoPresenter>(fuse.status());
  return OkStatus();
}

std::vector<ControlLayer> OpenStack::ListLayers() {
  std::vector<ControlLayer> layers;
  for (LayerStore::Row& row : store_->List()) {
    const bool lazy = row.reason == FallbackReason::kNone;
    layers.push_back({.number = row.number,
                      .reference = std::move(row.reference),
                      .digest = std::move(row.digest),
                      .reason = lazy ? "" : std::string(FallbackReasonName(row.reason)),
                      .detail = std::move(row.detail),
                      .blob_bytes = row.blob_bytes,
                      .chunks = row.chunks,
                      .present_chunks = row.present_chunks,
                      .allocated_bytes = row.allocated_bytes,
                      .presenter = std::move(row.presenter),
                      .disk_full = row.disk_full});
  }
  return layers;
}

std::vector<ControlCounter> OpenStack::Counters() {
  const BlobClient::Counters blobs = blobs_->counters();
  const Filler::Counters fill = filler_->counters();
  std::vector<ControlCounter> counters = {
      {"registry.requests", blobs.requests},
      {"registry.bytes", blobs.bytes},
      {"registry.retries", blobs.retries},
      {"registry.redirects", blobs.redirects},
      {"registry.token_requests", blobs.token_requests},
      {"fill.wants", fill.wants},
      {"fill.wants_absent", fill.wants_absent},
      {"fill.spans", fill.spans},
      {"fill.requests", fill.requests},
      {"fill.blob_bytes", fill.blob_bytes},
      {"fill.image_bytes", fill.image_bytes},
      {"fill.mismatches", fill.mismatches},
  };
  if (fuse_ != nullptr) {
    const FuseCounters fuse = fuse_->counters();
    const std::vector<ControlCounter> more = {
        {"fuse.lookups", fuse.lookups},       {"fuse.getattrs", fuse.getattrs},
        {"fuse.readdirs", fuse.readdirs},     {"fuse.readlinks", fuse.readlinks},
        {"fuse.getxattrs", fuse.getxattrs},   {"fuse.reads", fuse.reads},
        {"fuse.read_bytes", fuse.read_bytes}, {"fuse.errors", fuse.errors},
    };
    counters.insert(counters.end(), more.begin(), more.end());
  }
  return counters;
}

}  // namespace

std::vector<std::string> DaemonLayerStack::Folders() {
  return {"layers", "l", std::string(kFuseFolder)};
}

StatusOr<std::unique_ptr<DaemonLayerStack>> DaemonLayerStack::Open(const StargzConfig& config,
                                                                   const LayerRoot& root) {
  auto stack = std::make_unique<OpenStack>();
  STRATA_RETURN_IF_ERROR(stack->Begin(config, root));
  return stack;
}

}  // namespace strata
