// SPDX-License-Identifier: Apache-2.0
//
// What the kernel and a file system can do for overlayfs, tried for real. Stateless, safe from any
// thread; the probes make and remove a temporary directory inside the directory they are given.
#pragma once

#include <string>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

// Whether readdir tells the type of each entry (overlayfs needs it: Documentation/filesystems/
// overlayfs.rst, "upper and lower"). XFS made with ftype=0 and ext4 without the filetype feature do
// not.
StatusOr<bool> SupportsDType(const std::string& directory);

// OK when an overlay with two lower layers, an upper and a work directory inside `directory` mounts
// with `options` and a file written through it is in the upper layer; else the kernel's reason.
Status ProbeOverlay(const std::string& directory, const std::vector<std::string>& options = {});

// Whether this process lives in a user namespace other than the initial one (/proc/self/uid_map).
bool RunningInUserNamespace();

// Whether overlay mounts here need "userxattr" (Linux 5.11): in a user namespace, where trusted.*
// xattrs cannot be set. Never on tmpfs, whose user.* xattrs came only with 6.6. Kernels below 5.11
// that carry it as a patch are found by a mount.
StatusOr<bool> NeedsUserXattr(const std::string& directory);

// Whether the overlay module knows the "index" option.
bool OverlayHasIndexOption();

}  // namespace strata
