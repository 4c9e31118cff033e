// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/overlay_options.h"

#include "snapshotters/os/overlay_probe.h"
#include "snapshotters/os/probe_directory.h"

namespace strata {
bool HasMountOption(const std::vector<std::string>& options, std::string_view name) {
  for (const std::string& option : options) {
    if (option == name || (option.starts_with(name) && option[name.size()] == '=')) {
      return true;
    }
  }
  return false;
}

Status CheckOverlayOptions(const std::vector<std::string>& options) {
  for (const std::string& option : options) {
    for (const std::string_view reserved :
         {"lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir", "ro", "uidmap", "gidmap",
          "uidmapping", "gidmapping"}) {
      if (HasMountOption({option}, reserved)) {
        return MakeStatus(StatusCode::kInvalidArgument,
                          "mount option '" + option + "': the snapshotter sets it itself");
      }
    }
    if (HasMountOption({option}, "volatile")) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        "mount option '" + option +
                            "': layers that are unpacked would have it, too, and may be lost with "
                            "the power after they were recorded; use the setting 'volatile'");
    }
    if (option.empty() || option.find(',') != std::string::npos) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        "mount option '" + option + "': expected one option without ','");
    }
  }
  return OkStatus();
}

StatusOr<std::vector<std::string>> EffectiveOverlayOptions(const StateRoot& root,
                                                           std::vector<std::string> options) {
  if (!HasMountOption(options, "userxattr")) {
    STRATA_ASSIGN_OR_RETURN(const bool needed, NeedsUserXattr(root.path()));
    if (needed) {
      options.emplace_back("userxattr");
    }
  }
  // An index would tie an upper directory to the lower ones of its first mount; layers move on.
  if (!HasMountOption(options, "index") && OverlayHasIndexOption()) {
    options.emplace_back("index=off");
  }
  return options;
}

Status ProbeOverlayRoot(const std::string& root) {
  STRATA_ASSIGN_OR_RETURN(const bool d_type, SupportsDType(root));
  if (!d_type) {
    return MakeStatus(
        StatusCode::kFailedPrecondition,
        "root '" + root +
            "' is on a file system whose directories do not tell file types (d_type), "
            "which overlay needs: reformat it with ftype=1 (xfs) or filetype (ext4)");
  }
  if (const Status status = ProbeOverlay(root); !status.ok()) {
    if (status.code() == StatusCode::kResourceExhausted) {
      return Annotate(status, "root '" + root + "'");
    }
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "root '" + root +
                          "' cannot hold overlay layers: " + std::string(StatusMessage(status)) +
                          "; choose ext4, xfs or btrfs, or use strata-native");
  }
  return OkStatus();
}

Status CheckOverlayRoot(const StateRoot& root) {
  return ForgiveFullDisk(ProbeOverlayRoot(root.path()), root.fresh());
}

}  // namespace strata
