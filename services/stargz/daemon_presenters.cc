// SPDX-License-Identifier: Apache-2.0
#include "services/stargz/daemon_presenters.h"

#include <string_view>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/os/probe_directory.h"

namespace strata {
namespace {

// In the root: where the FUSE presenter has its mounts.
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

// Why EROFS is not to be used for new layers; empty: it is.
std::string Refusal(const StargzConfig& config, const FdStore& fds) {
  if (config.presenter == PresenterChoice::kFuse) {
    return "presenter is set to fuse";
  }
  if (config.state_files) {
    return "state_files is true: the kernel reads an image, which has no such files";
  }
  if (!config.reserve_space) {
    return "reserve_space is false: a full disk would fail reads that FUSE serves from memory";
  }
  if (!fds.available()) {
    return "nobody keeps the descriptors of this process: if it was killed, what is not fetched "
           "would be read as zeros";
  }
  return "";
}

}  // namespace

std::vector<std::string> DaemonPresenters::Folders() {
  return {std::string(kFuseFolder)};
}

StatusOr<std::unique_ptr<DaemonPresenters>> DaemonPresenters::Start(const StargzConfig& config,
                                                                    const std::string& root,
                                                                    FdStore& fds, Filler& filler,
                                                                    SpaceReserve& reserve) {
  std::unique_ptr<DaemonPresenters> presenters(new DaemonPresenters());
  presenters->StartErofs(config, root, fds, filler, reserve);
  STRATA_RETURN_IF_ERROR(presenters->StartFuse(config, root, fds, filler));
  presenters->Say(config, fds.available());
  return presenters;
}

void DaemonPresenters::StartErofs(const StargzConfig& config, const std::string& root, FdStore& fds,
                                  Filler& filler, SpaceReserve& reserve) {
  reason_ = Refusal(config, fds);
  show_erofs_ = reason_.empty();
  // Whatever is configured now, layers that a predecessor has shown are served.
  const bool has_predecessor = fds.Take(ErofsPresenter::kGroupName).valid();
  if (!show_erofs_ && !has_predecessor) {
    return;
  }
  auto erofs =
      ErofsPresenter::Start({.layers_directory = root + "/layers",
                             .probe_directory = root + "/" + std::string(kProbePrefix) + "erofs",
                             .show_new = show_erofs_},
                            fds, filler, reserve);
  if (erofs.ok()) {
    erofs_ = *std::move(erofs);
    reason_ = !reason_.empty() ? reason_
              : erofs_->inherited()
                  ? "a predecessor showed layers so"
                  : "the kernel asks for what is missing, and others hold its questions";
    return;
  }
  show_erofs_ = false;
  reason_ = StatusMessage(erofs.status());
  if (has_predecessor) {
    LogError("layers that a predecessor shows by EROFS are not served: who reads them waits",
             {{"error", reason_}});
  }
}

Status DaemonPresenters::StartFuse(const StargzConfig& config, const std::string& root,
                                   FdStore& fds, Filler& filler) {
  const std::string directory = root + "/" + std::string(kFuseFolder);
  STRATA_RETURN_IF_ERROR(MakePath(directory, 0700));
  auto fuse = FusePresenter::Start(
      {.directory = directory, .fds = &fds, .state_files = config.state_files}, filler);
  if (fuse.ok()) {
    fuse_ = *std::move(fuse);
  } else {
    none_ = std::make_unique<NoPresenter>(fuse.status());
  }
  return OkStatus();
}

void DaemonPresenters::Say(const StargzConfig& config, bool has_store) const {
  if (show_erofs_) {
    LogInfo("layers are shown by EROFS", {{"presenter", "erofs"}, {"reason", reason_}});
  } else if (config.presenter == PresenterChoice::kErofs) {
    LogWarn("layers are not shown by EROFS, which is what is configured",
            {{"presenter", "fuse"},
             {"reason", reason_},
             {"advice", has_store ? "stratactl probe says more"
                                  : "run it under strata-keeper, or under systemd with "
                                    "FileDescriptorStoreMax and FDSTORE as its unit has them"}});
  } else {
    LogInfo("layers are shown by FUSE", {{"presenter", "fuse"}, {"reason", reason_}});
  }
  if (fuse_ == nullptr) {
    LogWarn(
        show_erofs_ ? "layers that EROFS does not show will be ordinary ones"
                    : "lazy layers cannot be shown here: all layers will be ordinary ones",
        {{"presenter", "fuse"}, {"error", std::string(StatusMessage(none_->Show(nullptr, "")))}});
  }
}

LayerPresenters DaemonPresenters::presenters() const {
  LayerPresenters presenters{.fuse = none_.get(), .filled = erofs_.get()};
  if (fuse_ != nullptr) {
    presenters.fuse = fuse_.get();
  }
  presenters.show_filled = show_erofs_;
  presenters.files = erofs_ == nullptr ? nullptr : &erofs_->files();
  return presenters;
}

std::vector<ControlCounter> DaemonPresenters::Counters() const {
  std::vector<ControlCounter> counters;
  if (erofs_ != nullptr) {
    const ErofsCounters erofs = erofs_->counters();
    counters = {{"erofs.events", erofs.events},
                {"erofs.waited", erofs.waited},
                {"erofs.denied", erofs.denied},
                {"erofs.inherited", erofs.inherited},
                {"erofs.marked", erofs.marked}};
  }
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

}  // namespace strata
