// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/probe_directory.h"

#include <fcntl.h>

#include <cerrno>
#include <cstdlib>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/tree_remove.h"

namespace strata {

StatusOr<ProbeDirectory> ProbeDirectory::Create(const std::string& parent) {
  std::string path = parent + "/" + std::string(kProbePrefix) + "XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) {
    return ErrnoStatus(errno, "make a directory in " + ShowName(parent));
  }
  ProbeDirectory directory(std::move(path));
  STRATA_ASSIGN_OR_RETURN(directory.fd_, OpenFile(directory.path_, O_RDONLY | O_DIRECTORY));
  return directory;
}

ProbeDirectory::~ProbeDirectory() {
  if (path_.empty()) {
    return;
  }
  if (const Status status = RemoveTree(AT_FDCWD, path_); !status.ok()) {
    LogWarn("removal of a probe's directory failed, ignoring",
            {{"error", std::string(StatusMessage(status))}});
  }
}

Status ForgiveFullDisk(const Status& probed, bool fresh) {
  if (probed.code() != StatusCode::kResourceExhausted || fresh) {
    return probed;
  }
  LogWarn("the root's disk is full, so mounts there were not tried",
          {{"error", std::string(StatusMessage(probed))}});
  return OkStatus();
}

}  // namespace strata
