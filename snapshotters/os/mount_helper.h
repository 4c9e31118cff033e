// SPDX-License-Identifier: Apache-2.0
//
// Mounts that a program makes rather than the kernel: types "fuse3.X" and "fuse.X", in the way of
// mount(8) and of containerd. Safe from any thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

// Whether MountByHelper is for mounts of this type.
bool NeedsMountHelper(std::string_view type);

// The executable of that name in PATH (or, without PATH, where systemd looks), as execvp(3) would
// find it.
std::optional<std::string> FindProgram(std::string_view name);

// Runs `mount.fuse3 SOURCE TARGET -o OPTION... -t X` for type "fuse3.X" (mount.fuse for "fuse.X"),
// or X itself where that helper is not installed. `target` is an existing directory. OK means that
// something is mounted there which was not before; the server behind it is no child of ours. On
// failure nothing of it is left: a helper that takes longer than `limit` is killed, with its
// group. Options are not bound to mount(2)'s page, but each argument of a program to 128 KiB:
// ResourceExhausted. FailedPrecondition when there is no such program.
Status MountByHelper(const Mount& mount, const std::string& target,
                     std::chrono::milliseconds limit = std::chrono::seconds(30));

}  // namespace strata
