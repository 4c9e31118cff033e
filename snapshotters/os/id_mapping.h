// SPDX-License-Identifier: Apache-2.0
//
// The uid/gid mapping labels of user-namespaced containers (containerd.io/snapshot/uidmapping,
// .../gidmapping; snapshots-contract 4.2). Stateless, safe from any thread.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

inline constexpr std::string_view kUidMappingLabel = "containerd.io/snapshot/uidmapping";
inline constexpr std::string_view kGidMappingLabel = "containerd.io/snapshot/gidmapping";

struct HostOwner {
  uid_t uid = 0;
  gid_t gid = 0;
};

// Host ids of the container's root by the labels; nothing when neither label is there. A label that
// is there maps CONTAINER:HOST:SIZE[,...]; one that is not stands for the identity. InvalidArgument
// when a label is malformed or does not map container id 0.
StatusOr<std::optional<HostOwner>> MappedRoot(const Labels& labels);

// The labels that are there as options of a bind or an overlay mount, for clients that map ids
// themselves: "uidmap=0:100000:65536,..." and "gidmap=...". Errors as MappedRoot's.
StatusOr<std::vector<std::string>> MappingOptions(const Labels& labels);

// The labels that are there as options of a fuse-overlayfs mount: "uidmapping=0:100000:65536:..."
// and "gidmapping=...", with ':' between entries too (fuse-overlayfs(1)). Errors as MappedRoot's.
StatusOr<std::vector<std::string>> FuseMappingOptions(const Labels& labels);

}  // namespace strata
