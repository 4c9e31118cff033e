// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/fuse_overlay_probe.h"

#include <fcntl.h>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/mount_helper.h"
#include "snapshotters/os/mount_ops.h"
#include "snapshotters/os/probe_directory.h"

namespace strata {
namespace {

Status NotInstalled(std::string_view what, std::string_view package) {
  return MakeStatus(
      StatusCode::kFailedPrecondition,
      std::string(what) + " not installed (Debian's package " + std::string(package) + ")");
}

Status MountTwoLayers(const ProbeDirectory& probe) {
  for (const char* name : {"lower1", "lower2", kProbeMountPoint}) {
    STRATA_RETURN_IF_ERROR(MakeDirAt(probe.fd(), name, 0755));
  }
  for (const char* file : {"lower1/first", "lower2/second"}) {
    STRATA_RETURN_IF_ERROR(OpenFile(probe.Join(file), O_WRONLY | O_CREAT | O_EXCL, 0600).status());
  }
  const Mount mount{.type = std::string(kFuseOverlayType),
                    .source = "overlay",
                    .target = "",
                    .options = {"lowerdir=" + probe.Join("lower2") + ":" + probe.Join("lower1")}};
  const std::string merged = probe.Join(kProbeMountPoint);
  STRATA_ASSIGN_OR_RETURN(const ScopedMount mounted, ScopedMount::Mount({&mount, 1}, merged));
  for (const char* file : {"/first", "/second"}) {
    STRATA_RETURN_IF_ERROR(OpenFile(merged + file, O_PATH).status());
  }
  return OkStatus();
}

}  // namespace

Status ProbeFuseOverlay(const std::string& directory) {
  if (!FindProgram("fuse-overlayfs").has_value()) {
    return NotInstalled("fuse-overlayfs", "fuse-overlayfs");
  }
  if (!FindProgram("mount.fuse3").has_value()) {
    return NotInstalled("mount.fuse3, by which clients mount fuse-overlayfs,", "fuse3");
  }
  STRATA_ASSIGN_OR_RETURN(const ProbeDirectory probe, ProbeDirectory::Create(directory));
  Status status = MountTwoLayers(probe);
  if (status.ok() || status.code() == StatusCode::kResourceExhausted) {
    return status;
  }
  return MakeStatus(StatusCode::kFailedPrecondition,
                    "fuse-overlayfs not functional, make sure running with kernel >= 4.18: " +
                        std::string(StatusMessage(status)));
}

}  // namespace strata
