// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/overlay_settings.h"

#include <utility>

#include "snapshotters/os/idmap_probe.h"
#include "snapshotters/os/overlay_options.h"
#include "snapshotters/os/overlay_probe.h"
#include "snapshotters/os/probe_directory.h"

namespace strata {
namespace {

// How containerd's keys for unpacking begin, behind the namespace and a number.
constexpr std::string_view kUnpackKey = "extract-";

// Whether the kernel takes what was added to the mounts, rather than refusing each container.
Status ProbeOptions(const StateRoot& root, const OverlaySettings& settings) {
  std::vector<std::string> options = settings.mount_options;
  if (settings.volatile_containers) {
    options.emplace_back("volatile");
  }
  if (options.empty()) {
    return OkStatus();
  }
  Status status = ProbeOverlay(root.path(), options);
  if (status.ok() || status.code() == StatusCode::kResourceExhausted) {
    return status;
  }
  std::string all;
  for (const std::string& option : options) {
    all += (all.empty() ? "" : ",") + option;
  }
  return MakeStatus(StatusCode::kFailedPrecondition,
                    "overlay options '" + all + "' do not work in root '" + root.path() +
                        "': " + std::string(StatusMessage(status)));
}

}  // namespace

bool IsUnpack(std::string_view key, const Labels& labels) {
  for (size_t at = key.find(kUnpackKey); at != std::string_view::npos;
       at = key.find(kUnpackKey, at + 1)) {
    if (at == 0 || key[at - 1] == '/' || key[at - 1] == kTenantMark) {
      return true;
    }
  }
  return labels.find(kSnapshotRefLabel) != labels.end();
}

StatusOr<OverlaySettings> ProbeOverlaySettings(const StateRoot& root, OverlaySettings settings) {
  STRATA_RETURN_IF_ERROR(CheckOverlayOptions(settings.mount_options));
  STRATA_RETURN_IF_ERROR(CheckOverlayRoot(root));
  STRATA_RETURN_IF_ERROR(ForgiveFullDisk(ProbeOptions(root, settings), root.fresh()));
  if (settings.remap_ids == RemapIds::kOn) {
    STRATA_RETURN_IF_ERROR(
        Annotate(ProbeIdmappedMounts(root.path()), "map ids in root '" + root.path() + "'"));
  }
  STRATA_ASSIGN_OR_RETURN(settings.mount_options,
                          EffectiveOverlayOptions(root, std::move(settings.mount_options)));
  return settings;
}

}  // namespace strata
