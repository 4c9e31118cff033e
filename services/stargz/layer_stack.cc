// SPDX-License-Identifier: Apache-2.0
#include "services/stargz/layer_stack.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "services/stargz/daemon_presenters.h"
#include "services/version.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/space_reserve.h"
#include "snapshotters/registry/credentials.h"
#include "snapshotters/registry/http_client.h"

namespace strata {
namespace {

// In the root: the file of the SpaceReserve, and the socket of whoever else holds our descriptors
// (services/keeper/PROTOCOL.md).
constexpr std::string_view kReserveName = "reserve";
constexpr std::string_view kHolderName = "holder.sock";

class OpenStack final : public DaemonLayerStack {
 public:
  ~OpenStack() override {
    // Before the store goes: its filler may still ask it for space.
    const MutexLock lock(mutex_);
    asked_for_space_ = nullptr;
  }

  Status Begin(const StargzConfig& config, const LayerRoot& root, FdStore& fds) {
    STRATA_ASSIGN_OR_RETURN(
        http_, HttpClient::Create({.user_agent = "strata-stargz/" + std::string(kVersion)}));
    STRATA_ASSIGN_OR_RETURN(blobs_, BlobClient::Create(config.blobs, credentials_, *http_));
    STRATA_ASSIGN_OR_RETURN(reserve_,
                            SpaceReserve::Open(root.path + "/" + std::string(kReserveName)));
    Filler::Options filling = config.filler;
    filling.reserve = reserve_.get();
    STRATA_ASSIGN_OR_RETURN(filler_, Filler::Create(filling, [this] { MakeSpace(); }));
    STRATA_ASSIGN_OR_RETURN(presenters_,
                            DaemonPresenters::Start(config, root.path, fds, *filler_, *reserve_));
    LayerStoreOptions layers = config.layers;
    layers.root = root.path;
    layers.erofs_when_complete = layers.erofs_when_complete && !config.state_files;
    layers.user_xattr = root.user_xattr;
    layers.referenced = root.referenced;
    STRATA_ASSIGN_OR_RETURN(store_,
                            LayerStore::Open(layers, *blobs_, *filler_, presenters_->presenters()));
    reserve_->Settled();
    const MutexLock lock(mutex_);
    asked_for_space_ = store_.get();
    return OkStatus();
  }

  LayerStore& layers() override { return *store_; }
  std::vector<ControlLayer> ListLayers() override;
  std::vector<ControlCounter> Counters() override;
  void FetchAll() override { store_->FetchAll(); }
  ControlDrain DrainState() override;

 private:
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
  std::unique_ptr<SpaceReserve> reserve_;
  std::unique_ptr<Filler> filler_;
  std::unique_ptr<DaemonPresenters> presenters_;
  std::unique_ptr<LayerStore> store_;
};

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

ControlDrain OpenStack::DrainState() {
  ControlDrain state;
  for (LayerStore::Row& row : store_->List()) {
    if (row.number == 0) {
      continue;
    }
    ++state.layers;
    if (row.present_chunks >= row.chunks) {
      continue;
    }
    ++state.layers_left;
    const double absent = static_cast<double>(row.chunks - row.present_chunks);
    state.bytes_left += static_cast<uint64_t>(static_cast<double>(row.blob_bytes) * absent /
                                              static_cast<double>(row.chunks));
    if (row.has_error) {
      state.failed.push_back({.number = row.number,
                              .reference = std::move(row.reference),
                              .detail = std::move(row.detail)});
    }
  }
  return state;
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
  const LayerStore::Shown shown = store_->CountShown();
  const std::vector<ControlCounter> layers = {
      {"presenter.erofs", shown.erofs},
      {"presenter.fuse", shown.fuse},
      {"presenter.refused", shown.refused},
      {"presenter.lingering", shown.lingering},
      {"presenter.reserved_bytes", reserve_->reserved()},
  };
  counters.insert(counters.end(), layers.begin(), layers.end());
  const std::vector<ControlCounter> presenters = presenters_->Counters();
  counters.insert(counters.end(), presenters.begin(), presenters.end());
  return counters;
}

}  // namespace

std::vector<std::string> DaemonLayerStack::Folders() {
  std::vector<std::string> names = DaemonPresenters::Folders();
  names.insert(names.end(), {"layers", "l", std::string(kReserveName), std::string(kHolderName)});
  return names;
}

StatusOr<std::unique_ptr<DaemonLayerStack>> DaemonLayerStack::Open(const StargzConfig& config,
                                                                   const LayerRoot& root,
                                                                   FdStore& fds) {
  auto stack = std::make_unique<OpenStack>();
  STRATA_RETURN_IF_ERROR(stack->Begin(config, root, fds));
  return stack;
}

}  // namespace strata
