// SPDX-License-Identifier: Apache-2.0
//
// What is mounted for a container besides its root, and the files that it is given, in its bundle.
// Stateless; safe from any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "client/run/bundle.h"
#include "client/run/executor.h"
#include "snapshotters/base/status.h"

namespace strata {

// The id on the host; as it is where nothing maps it.
uint32_t HostId(const std::vector<IdRange>& map, uint32_t id);

// Makes <bundle>/rootfs and mounts the snapshot there.
Status MountRoot(const Bundle& bundle, const RunRequest& request, const ExecutorOptions& options);

// <bundle>/hosts and <bundle>/resolv.conf.
Status WriteNameFiles(const Bundle& bundle, const RunRequest& request,
                      const ExecutorOptions& options, bool host_network);

// The request's mounts as a runtime can make them: what it cannot (helpers, long option lists) is
// mounted in the bundle and bound. In a user namespace binds get the flags that their source's
// mount has locked.
StatusOr<std::vector<ExtraMount>> PrepareMounts(const Bundle& bundle, const RunRequest& request,
                                                bool user_namespace);

}  // namespace strata
