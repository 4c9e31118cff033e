// SPDX-License-Identifier: Apache-2.0
//
// What the kernel and a file system can do for id-mapped mounts, tried for real. Stateless, safe
// from any thread.
#pragma once

#include <string>

#include "snapshotters/base/status.h"

namespace strata {

// OK when a mount of `directory` can map ids (mount_setattr(2), MOUNT_ATTR_IDMAP, Linux 5.12) and
// overlay takes such mounts as layers (Linux 5.19), as containerd's mounter of uidmap= and gidmap=
// wants it. FailedPrecondition with the reason if not. Nothing is mounted anywhere.
Status ProbeIdmappedMounts(const std::string& directory);

}  // namespace strata
