// SPDX-License-Identifier: Apache-2.0
//
// OverlaySettings: what an operator may choose about snapshots that are overlay layers, and what
// that comes to on one root. Plain data; the functions are stateless and safe from any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/state_root.h"

namespace strata {

// The label that tells where a snapshot's own files are (snapshots-contract 4.1).
inline constexpr std::string_view kUpperdirLabel = "containerd.io/snapshot/overlay.upperdir";

// Whether the mapping labels of a snapshot become options of its mounts.
enum class RemapIds {
  kAuto,  // where every version of every client can do with that
  kOn,
  kOff,
};

struct OverlaySettings {
  // Appended to overlay mounts, never to binds.
  std::vector<std::string> mount_options;
  // Writable overlays of containers, but not those that a layer is unpacked into, are "volatile":
  // what is written is not synced when they are unmounted (Linux 5.10).
  bool volatile_containers = false;
  // Infos have kUpperdirLabel.
  bool upperdir_label = false;
  RemapIds remap_ids = RemapIds::kAuto;
};

// Whether a client unpacks a layer into the active: by the key that containerd gives it, or because
// the labels name what it will be committed as.
bool IsUnpack(std::string_view key, const Labels& labels);

// What the settings come to on a root of kernel overlays, tried for real: that it can hold overlay
// layers, that the kernel takes the options, which others it needs, and whether it can map ids
// there. InvalidArgument: an option that snapshotters set themselves. FailedPrecondition with the
// reason else.
StatusOr<OverlaySettings> ProbeOverlaySettings(const StateRoot& root, OverlaySettings settings);

}  // namespace strata
