// SPDX-License-Identifier: Apache-2.0
//
// WriteLayerDiff: what a snapshot changes, as the tar of a layer with OCI's whiteouts. Stateless;
// safe from any thread. Nothing may write to the trees meanwhile.
#pragma once

#include <functional>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

using TarReceiver = std::function<Status(std::string_view bytes)>;

// The upper folder of an overlay: what is in it, its whiteouts and opaque directories.
// Unimplemented when it has what only the kernel can tell (redirect_dir, metacopy): compare the
// trees then.
Status WriteUpperDiff(const CallContext& call, int upper, const TarReceiver& receiver);

// Directory `after` against `before` (-1: nothing), by types, owners, modes, xattrs, times of files
// and their bytes.
Status WriteTreeDiff(const CallContext& call, int before, int after, const TarReceiver& receiver);

}  // namespace strata
