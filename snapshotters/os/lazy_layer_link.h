// SPDX-License-Identifier: Apache-2.0
//
// The symlink by which a snapshot's directory says that it stands for a lazy layer (stargz):
// snapshots/<id>/layer -> ../../l/<n>. Stateless, safe from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "snapshotters/core/meta_store.h"

namespace strata {

// Where the link of the snapshot leads; nothing: it has none, or its directory is not there.
std::optional<std::string> LazyLayerLink(int snapshots_fd, SnapshotId id);

// The layer's number in the text of a link; 0: it is none of ours.
uint64_t LayerIn(std::string_view target);

}  // namespace strata
