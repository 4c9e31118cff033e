// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/health_service.h"

#include <grpc/health/v1/health.pb.h>

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "snapshotters/base/mutex.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

namespace wire = ::grpc::health::v1;
using Serving = wire::HealthCheckResponse::ServingStatus;

std::string ToWire(Serving serving) {
  wire::HealthCheckResponse response;
  response.set_status(serving);
  return response.SerializeAsString();
}

class WatchedHealth final : public HealthService {
 public:
  explicit WatchedHealth(std::vector<std::string> services) : services_(std::move(services)) {}

  void AddTo(MethodTable* methods) override {
    methods->unary["/grpc.health.v1.Health/Check"] = {
        .begin = [this](RpcCall& call, std::string_view bytes) { call.Finish(Check(bytes)); }};
    methods->streams["/grpc.health.v1.Health/Watch"] = {
        .begin = [this](StreamCall& call, std::string_view bytes) { Watch(call, bytes); }};
  }

  void SetServing(bool serving) override {
    const MutexLock lock(mutex_);
    serving_ =
        serving ? wire::HealthCheckResponse::SERVING : wire::HealthCheckResponse::NOT_SERVING;
    for (const auto& watcher : watchers_) {
      Tell(*watcher);
    }
  }

 private:
  struct Watcher : std::enable_shared_from_this<Watcher> {
    Watcher(StreamCall& of, bool is_known) : call(of), known(is_known) {}
    StreamCall& call;
    const bool known;
    bool writing = false;
    bool gone = false;
    Serving told = wire::HealthCheckResponse::UNKNOWN;
  };

  [[nodiscard]] bool Knows(const std::string& service) const {
    return service.empty() || std::ranges::find(services_, service) != services_.end();
  }

  Answer Check(std::string_view bytes) {
    wire::HealthCheckRequest request;
    STRATA_RETURN_IF_ERROR(ParseRequest(bytes, &request));
    if (!Knows(request.service())) {
      return MakeStatus(StatusCode::kNotFound,
                        "no service " + ShowName(request.service()) + " here");
    }
    const MutexLock lock(mutex_);
    return ToWire(serving_);
  }

  void Watch(StreamCall& call, std::string_view bytes) {
    wire::HealthCheckRequest request;
    if (const Status parsed = ParseRequest(bytes, &request); !parsed.ok()) {
      call.Finish(parsed);
      return;
    }
    const auto watcher = std::make_shared<Watcher>(call, Knows(request.service()));
    {
      const MutexLock lock(mutex_);
      watchers_.insert(watcher);
      Tell(*watcher);
    }
    call.WhenCancelled([this, watcher] {
      const MutexLock lock(mutex_);
      watcher->gone = true;
      EndIfGone(watcher);
    });
  }

  // One message at a time; the latest is told last.
  void Tell(Watcher& watcher) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const Serving now = watcher.known ? serving_ : wire::HealthCheckResponse::SERVICE_UNKNOWN;
    if (watcher.writing || watcher.gone || watcher.told == now) {
      return;
    }
    watcher.writing = true;
    watcher.told = now;
    watcher.call.Write(ToWire(now), [this, shared = watcher.shared_from_this()](bool ok) {
      const MutexLock lock(mutex_);
      shared->writing = false;
      shared->gone |= !ok;
      EndIfGone(shared);
      Tell(*shared);
    });
  }

  void EndIfGone(const std::shared_ptr<Watcher>& watcher) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (watcher->gone && !watcher->writing && watchers_.erase(watcher) != 0) {
      watcher->call.Finish(MakeStatus(StatusCode::kCancelled, "the caller has gone"));
    }
  }

  const std::vector<std::string> services_;
  Mutex mutex_;
  Serving serving_ ABSL_GUARDED_BY(mutex_) = wire::HealthCheckResponse::NOT_SERVING;
  std::set<std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<HealthService> NewHealthService(std::vector<std::string> services) {
  return std::make_unique<WatchedHealth>(std::move(services));
}

}  // namespace strata
