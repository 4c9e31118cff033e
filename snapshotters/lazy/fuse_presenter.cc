// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fuse_presenter.h"

#include <absl/base/thread_annotations.h>

#include <atomic>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/fuse_connection.h"
#include "snapshotters/lazy/fuse_session.h"
#include "snapshotters/lazy/fuse_tree.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {
namespace {

// One of the two mounts.
class FuseMount {
 public:
  FuseMount(const FuseOptions& options, const std::string& name, Filler& filler,
            std::shared_ptr<FuseCounts> counts, bool has_xattrs)
      : options_(options),
        directory_(options.directory + "/" + name),
        kept_name_("fuse-" + name),
        store_(options.fds != nullptr && options.fds->available() ? options.fds : nullptr),
        has_xattrs_(has_xattrs),
        tree_(filler, std::move(counts),
              {.has_xattrs = has_xattrs, .has_state_files = options.state_files}) {}
  FuseMount(const FuseMount&) = delete;
  FuseMount& operator=(const FuseMount&) = delete;

  // Goes on with what a predecessor left, or takes it away, so that its mount point can be used.
  Status Begin() {
    if (store_ != nullptr) {
      Status status = Resume();
      if (status.ok()) {
        return status;
      }
      if (status.code() != StatusCode::kNotFound) {
        LogWarn("a FUSE mount starts anew: what is open in the old one fails",
                {{"mount", directory_}, {"error", std::string(StatusMessage(status))}});
      }
      FuseConnection::Drop(*store_, kept_name_);
    }
    return Clear();
  }

  Status EnsureStarted() {
    const MutexLock lock(start_mutex_);
    if (session_ != nullptr) {
      return OkStatus();
    }
    STRATA_ASSIGN_OR_RETURN(FuseConnection connection, FuseConnection::Open(directory_));
    // Before anybody uses the mount.
    const Status kept = Keep(connection);
    if (!kept.ok() && store_ != nullptr) {
      LogWarn("a FUSE mount ends with this process",
              {{"mount", directory_}, {"reason", std::string(StatusMessage(kept))}});
    }
    is_kept_ = kept.ok();
    StatusOr<std::unique_ptr<FuseSession>> session = StartSession(std::move(connection));
    if (!session.ok()) {
      Drop();
      return session.status();
    }
    session_ = *std::move(session);
    return OkStatus();
  }

  // Whether it can go on without this process; what has not been started can.
  [[nodiscard]] bool may_stay() const { return store_ != nullptr && is_kept_; }

  // Serves no more. The mount stays for a successor, or ends with it.
  void End(bool stays) {
    tree_.Close(/*has_successor=*/stays);
    const MutexLock lock(start_mutex_);
    if (session_ != nullptr && stays) {
      session_->LeaveMount();
    }
    session_.reset();
    if (!stays) {
      Drop();
    }
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

  // Whether `top` is of this mount, which goes on.
  bool ResumeLayer(const std::shared_ptr<FillLayer>& layer, const FoundMount* top) {
    FuseSession* const session = Session();
    if (session == nullptr || !session->is_resumed()) {
      return false;
    }
    (void)tree_.layers().Add(layer);
    return top != nullptr && top->device == session->mount_device();
  }

  void Settle() {
    if (FuseSession* const session = Session(); session != nullptr) {
      session->Settle();
    }
  }

  void Withdraw(uint64_t number) {
    const std::shared_ptr<FuseLayers::Layer> layer = tree_.layers().Withdraw(number);
    FuseSession* const session = Session();
    if (layer == nullptr || session == nullptr) {
      return;
    }
    session->ForgetName(std::to_string(number));
    if (!tree_.layers().is_counted() && !session->IsInUse(FuseTree::TopOf(*layer))) {
      tree_.layers().LetGo(number);
    }
  }

 private:
  Status Resume() {
    STRATA_ASSIGN_OR_RETURN(FuseConnection connection,
                            FuseConnection::Take(*store_, kept_name_, directory_));
    const MutexLock lock(start_mutex_);
    STRATA_ASSIGN_OR_RETURN(session_, StartSession(std::move(connection)));
    tree_.layers().StopCounting();
    is_kept_ = true;
    return OkStatus();
  }

  StatusOr<std::unique_ptr<FuseSession>> StartSession(FuseConnection connection) {
    return FuseSession::Start({.mountpoint = directory_,
                               .threads = options_.threads,
                               .read_ahead_bytes = options_.read_ahead_bytes,
                               .posix_acl = has_xattrs_,
                               .asks_to_open = options_.state_files,
                               .knows = FuseTree::Knows},
                              std::move(connection), FuseTree::Operations(), &tree_);
  }

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

  [[nodiscard]] Status Keep(const FuseConnection& connection) const {
    if (store_ == nullptr) {
      return MakeStatus(StatusCode::kFailedPrecondition, "there is nobody who keeps it");
    }
    if (!connection.can_resend()) {
      return MakeStatus(StatusCode::kUnimplemented, "the kernel does not send requests again");
    }
    return connection.Keep(*store_, kept_name_);
  }

  void Drop() {
    if (store_ != nullptr) {
      FuseConnection::Drop(*store_, kept_name_);
    }
  }

  FuseSession* Session() {
    const MutexLock lock(start_mutex_);
    return session_.get();
  }

  const FuseOptions& options_;
  const std::string directory_;
  const std::string kept_name_;
  FdStore* const store_;  // null: nobody keeps
  const bool has_xattrs_;
  FuseTree tree_;
  std::atomic<bool> is_kept_{true};  // not started: nothing is lost
  Mutex start_mutex_;                // held while a session starts: the others need it too
  // Set once, before any layer is known; ends before tree_.
  std::unique_ptr<FuseSession> session_ ABSL_GUARDED_BY(start_mutex_);
};

class TwoMountsPresenter final : public FusePresenter {
 public:
  TwoMountsPresenter(const FuseOptions& options, Filler& filler)
      : options_(options),
        plain_(options_, "p", filler, counts_, /*has_xattrs=*/false),
        xattrs_(options_, "x", filler, counts_, /*has_xattrs=*/true) {}

  ~TwoMountsPresenter() override {
    const bool stays = this->stays();
    plain_.End(stays);
    xattrs_.End(stays);
  }
  TwoMountsPresenter(const TwoMountsPresenter&) = delete;
  TwoMountsPresenter& operator=(const TwoMountsPresenter&) = delete;

  // The mount for layers with xattrs waits for the first of them.
  Status Start() {
    STRATA_RETURN_IF_ERROR(xattrs_.Begin());
    STRATA_RETURN_IF_ERROR(plain_.Begin());
    return plain_.EnsureStarted();
  }

  [[nodiscard]] std::string_view name() const override { return "fuse"; }

  Status Show(const std::shared_ptr<FillLayer>& layer, const std::string& target) override {
    const uint64_t number = layer->image().number();
    if (!HasRoom(number)) {
      return MakeStatus(StatusCode::kInvalidArgument, "show layer " + std::to_string(number) +
                                                          ": expected a number from 1 to " +
                                                          std::to_string(FuseTree::kMaxLayer));
    }
    FuseMount& mount = MountOf(*layer);
    STRATA_RETURN_IF_ERROR(mount.EnsureStarted());
    return mount.Show(layer, target);
  }

  bool Resume(const std::shared_ptr<FillLayer>& layer, const FoundMount* top) override {
    return HasRoom(layer->image().number()) && MountOf(*layer).ResumeLayer(layer, top);
  }

  void Settled() override {
    plain_.Settle();
    xattrs_.Settle();
  }

  [[nodiscard]] bool stays() const override { return plain_.may_stay() && xattrs_.may_stay(); }

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
  static bool HasRoom(uint64_t number) { return number != 0 && number <= FuseTree::kMaxLayer; }
  FuseMount& MountOf(FillLayer& layer) { return layer.image().has_xattrs() ? xattrs_ : plain_; }

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
