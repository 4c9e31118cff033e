// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/snapshotter_choice.h"

#include <string_view>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/os/fuse_overlay_probe.h"
#include "snapshotters/os/overlay_options.h"
#include "snapshotters/os/state_root.h"

namespace strata {
namespace {

constexpr std::string_view kOverlayfs = "overlayfs";
constexpr std::string_view kFuseOverlayfs = "fuse-overlayfs";
constexpr std::string_view kNative = "native";

Status Stranded(const std::string& root, const std::string& kind, std::string_view why) {
  return MakeStatus(StatusCode::kFailedPrecondition,
                    "auto snapshotter: root '" + root + "' was begun with " + kind + ", " +
                        std::string(why) +
                        "; another snapshotter could not show the snapshots in it. Name that "
                        "snapshotter instead of auto, make it work again, or choose another root");
}

// The choice for a root that has served as `kind`.
StatusOr<SnapshotterChoice> Keep(const std::string& root, const std::string& kind,
                                 const SnapshotterProbes& probes) {
  Status status;
  if (kind == kOverlayfs) {
    status = probes.overlayfs(root);
  } else if (kind == kFuseOverlayfs) {
    status = probes.fuse_overlayfs(root);
  } else if (kind != kNative) {
    return Stranded(root, kind, "which auto never chooses");
  }
  // A full disk, where nothing can be tried, is no reason: the root must open to be emptied.
  if (!status.ok() && status.code() != StatusCode::kResourceExhausted) {
    return Stranded(root, kind,
                    "which does not work any more: " + std::string(StatusMessage(status)));
  }
  return SnapshotterChoice{.kind = kind, .reasons = {}};
}

}  // namespace

SnapshotterProbes SnapshotterProbes::Real() {
  return {.overlayfs = ProbeOverlayRoot, .fuse_overlayfs = ProbeFuseOverlay};
}

StatusOr<SnapshotterChoice> ChooseSnapshotter(const std::string& root,
                                              const SnapshotterProbes& probes) {
  STRATA_RETURN_IF_ERROR(StateRoot::CheckPath(root));
  STRATA_RETURN_IF_ERROR(Annotate(MakePath(root, 0700), "root '" + root + "'"));
  STRATA_ASSIGN_OR_RETURN(const std::string begun_with, StateRoot::KindOf(root));
  if (!begun_with.empty()) {
    return Keep(root, begun_with, probes);
  }
  SnapshotterChoice choice;
  const auto refuse = [&](std::string_view kind, std::string_view next, const Status& status) {
    choice.reasons.push_back("auto snapshotter: " + std::string(kind) + " is not available for " +
                             root + ", " + std::string(next) + ": " +
                             std::string(StatusMessage(status)));
  };
  if (const Status status = probes.overlayfs(root); status.ok()) {
    choice.kind = kOverlayfs;
    return choice;
  } else {
    refuse(kOverlayfs, "trying fuse-overlayfs", status);
  }
  if (const Status status = probes.fuse_overlayfs(root); status.ok()) {
    choice.kind = kFuseOverlayfs;
    return choice;
  } else {
    refuse(kFuseOverlayfs, "falling back to native", status);
  }
  choice.kind = kNative;
  return choice;
}

void LogSnapshotterChoice(const SnapshotterChoice& choice) {
  for (const std::string& reason : choice.reasons) {
    LogDebug(reason);
  }
  LogInfo("auto snapshotter: using " + choice.kind);
}

}  // namespace strata
