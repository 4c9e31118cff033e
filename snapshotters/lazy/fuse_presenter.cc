// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fuse_presenter.h"

#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/fuse_session.h"
#include "snapshotters/lazy/fuse_tree.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {
namespace {

// One of the two mounts.
class FuseMount {
 public:
  FuseMount(std::string directory, Filler& filler, std::shared_ptr<FuseCounts> counts,
            bool has_xattrs)
      : directory_(std::move(directory)),
        has_xattrs_(has_xattrs),
        tree_(filler, std::move(counts), has_xattrs) {}

  ~FuseMount() { tree_.Close(); }  // and then the session ends
  FuseMount(const FuseMount&) = delete;
  FuseMount& operator=(const FuseMount&) = delete;

  // Takes away what a predecessor left, so that its mount point can be used.
  Status Clear() const {
    Status status;
    do {
      status = Unmount(directory_, /*lazy=*/true);
    } while (status.ok());
    if (status.code() != StatusCode::kNotFound) {
      return status;
    }
    return MakePath(directory_, 0700);
  }

  Status EnsureStarted(const FuseOptions& options) {
    const MutexLock lock(start_mutex_);
    if (session_ != nullptr) {
      return OkStatus();
    }
    STRATA_ASSIGN_OR_RETURN(session_,
                            FuseSession::Start({.mountpoint = directory_,
                                                .threads = options.threads,
                                                .read_ahead_bytes = options.read_ahead_bytes,
                                                .posix_acl = has_xattrs_},
                                               FuseTree::Operations(), &tree_));
    return OkStatus();
  }

  // Started.
  Status Show(const std::shared_ptr<FillLayer>& layer, const std::string& target) {
    const uint64_t number = layer->image().number();
    const bool is_new = tree_.layers().Add(layer);
    const Mount bind{"bind", directory_ + "/" + std::to_string(number), "", {"ro"}};
    Status status = MountAll({&bind, 1}, target);
    if (!status.ok() && is_new) {
      Withdraw(number);
    }
    return status;
  }

  void Withdraw(uint64_t number) {
    if (tree_.layers().Withdraw(number)) {
      session_->ForgetName(std::to_string(number));
    }
  }

 private:
  const std::string directory_;
  const bool has_xattrs_;
  FuseTree tree_;
  Mutex start_mutex_;                     // held while a session starts: the others need it too
  std::unique_ptr<FuseSession> session_;  // set once, before any layer is known; ends before tree_
};

class TwoMountsPresenter final : public FusePresenter {
 public:
  TwoMountsPresenter(const FuseOptions& options, Filler& filler)
      : options_(options),
        plain_(options.directory + "/p", filler, counts_, /*has_xattrs=*/false),
        xattrs_(options.directory + "/x", filler, counts_, /*has_xattrs=*/true) {}

  // The mount for layers with xattrs waits for the first of them.
  Status Start() {
    STRATA_RETURN_IF_ERROR(xattrs_.Clear());
    STRATA_RETURN_IF_ERROR(plain_.Clear());
    return plain_.EnsureStarted(options_);
  }

  [[nodiscard]] std::string_view name() const override { return "fuse"; }

  Status Show(const std::shared_ptr<FillLayer>& layer, const std::string& target) override {
    const uint64_t number = layer->image().number();
    if (number == 0 || number > FuseTree::kMaxLayer) {
      return MakeStatus(StatusCode::kInvalidArgument, "show layer " + std::to_string(number) +
                                                          ": expected a number from 1 to " +
                                                          std::to_string(FuseTree::kMaxLayer));
    }
    FuseMount& mount = layer->image().has_xattrs() ? xattrs_ : plain_;
    STRATA_RETURN_IF_ERROR(mount.EnsureStarted(options_));
    return mount.Show(layer, target);
  }

  bool Withdraw(uint64_t layer_number) override {
    plain_.Withdraw(layer_number);
    xattrs_.Withdraw(layer_number);
    return true;  // files that are still open are served from descriptors
  }

  [[nodiscard]] FuseCounters counters() const override {
    return {.lookups = counts_->lookups,
            .getattrs = counts_->getattrs,
            .readdirs = counts_->readdirs,
            .readlinks = counts_->readlinks,
            .getxattrs = counts_->getxattrs,
            .reads = counts_->reads,
            .read_bytes = counts_->read_bytes,
            .errors = counts_->errors};
  }

 private:
  const FuseOptions options_;
  const std::shared_ptr<FuseCounts> counts_ = std::make_shared<FuseCounts>();
  FuseMount plain_;
  FuseMount xattrs_;
};

}  // namespace

StatusOr<std::unique_ptr<FusePresenter>> FusePresenter::Start(const FuseOptions& options,
                                                              Filler& filler) {
  if (!options.directory.starts_with('/') || options.threads < 1) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "start FUSE presenter: expected an absolute directory and at least 1 thread");
  }
  auto presenter = std::make_unique<TwoMountsPresenter>(options, filler);
  STRATA_RETURN_IF_ERROR(presenter->Start());
  return std::unique_ptr<FusePresenter>(std::move(presenter));
}

}  // namespace strata
