// SPDX-License-Identifier: Apache-2.0
//
// ApplyLayer: a layer's tar onto a directory, with OCI's whiteouts. Nothing outside of the
// directory is touched whatever the archive says: symlinks among an entry's parents (/lib, made by
// a lower layer) lead inside the directory as inside a root, the entry's own name is never
// followed, and ".." in a name is an error. Stateless; safe from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/call_context.h"

namespace strata {

struct ApplyOptions {
  // How the directory shows what a layer took away: on overlay, char device 0/0 and the xattr
  // trusted.overlay.opaque (or user.) in the upper folder; else the thing itself is removed from
  // the merged tree that the directory is.
  bool overlay_upper = false;
  bool user_xattr = false;
  // Ids beyond what the process can give are errors; device nodes are left out with a note, as
  // containerd does in a user namespace.
  bool user_namespace = false;
  // For an overlay's upper folder: the lower layers as one tree, read-only. Called at most once,
  // when a parent, a symlink or a hardlink's target is there only. Empty: there are none.
  std::function<StatusOr<UniqueFd>()> open_lower;
  uint64_t max_bytes = uint64_t{1} << 40;  // of all files together
  uint64_t max_entries = 50'000'000;
  std::function<void(std::string_view note)> note;  // what was left out; may be empty
};

struct Applied {
  uint64_t entries = 0;
  uint64_t bytes = 0;
};

// Bytes of the tar, uncompressed: fills `buffer`, 0 at the end.
using TarSource = std::function<StatusOr<size_t>(char* buffer, size_t size)>;

// DataLoss names the entry and what is wrong with it. On failure the directory is half filled: the
// caller throws its snapshot away. The source is read to its end, so that its digest is known.
StatusOr<Applied> ApplyLayer(const CallContext& call, const TarSource& source, int directory,
                             const ApplyOptions& options);

}  // namespace strata
