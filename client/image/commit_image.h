// SPDX-License-Identifier: Apache-2.0
//
// CommitAsImage: what an active snapshot changes, as one more layer of an image. Safe from any
// thread; it blocks its thread.
#pragma once

#include <string>
#include <string_view>

#include "client/image/content_store.h"
#include "client/image/pull.h"
#include "client/worker_snapshots.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

// See Puller::CommitImage. The layer is gzip.
StatusOr<PulledImage> CommitAsImage(CallContext& call, ContentStore& content,
                                    WorkerSnapshots& snapshots, const PulledImage& base,
                                    std::string_view active, const std::string& name,
                                    const ImageConfig& config);

}  // namespace strata
