// SPDX-License-Identifier: Apache-2.0
//
// A copy of a directory tree that an image layer can live in. Stateless, safe from any thread.
#pragma once

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

// Copies what is in directory `from` into the existing empty directory `to`, and gives `to` itself
// the mode, owner, times and xattrs of `from`. Kept: type, mode with setuid/setgid/sticky, owner,
// times to the nanosecond (those of directories too), xattrs incl. security.capability and
// trusted.*, hardlinks inside the tree, symlink targets, device numbers, fifos, sockets, holes.
// File data shares blocks (FICLONE, ioctl_ficlone(2)) where the file system can, else
// copy_file_range(2) of the data segments, else read and write. An xattr that the target file
// system refuses with EOPNOTSUPP is left out, any other failure ends the copy. Symlinks in the tree
// are never followed. What is mounted inside is not entered: its mount point becomes an empty
// directory or file with the attributes of the mounted root. Access times of the source stay
// (O_NOATIME) but for those of symlinks, which readlink(2) always moves. On error `to` holds a
// partial tree, which is the caller's to remove. Cancelled when `call` is.
Status CopyTree(const CallContext& call, int from, int to);

}  // namespace strata
