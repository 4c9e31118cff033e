// SPDX-License-Identifier: Apache-2.0
#include "client/stratactl/probe.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "client/stratactl/table.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/lazy/erofs_probe.h"
#include "snapshotters/os/overlay_probe.h"
#include "snapshotters/os/probe_directory.h"

namespace strata {
namespace {

Finding FromStatus(std::string name, const Status& status, std::string good_for) {
  return {.name = std::move(name),
          .works = status.ok(),
          .detail = status.ok() ? std::move(good_for) : std::string(StatusMessage(status))};
}

Finding Kernel() {
  utsname names{};
  (void)::uname(&names);  // cannot fail with this argument
  return {.name = "kernel", .works = true, .detail = names.release};
}

Finding UserNamespace() {
  const bool inside = RunningInUserNamespace();
  return {.name = "privileges",
          .works = !inside,
          .detail = inside ? "in a user namespace: layers are shown by FUSE"
                           : "in the initial user namespace"};
}

Finding EntryTypes(const std::string& root) {
  const StatusOr<bool> has = SupportsDType(root);
  if (!has.ok()) {
    return FromStatus("d_type", has.status(), "");
  }
  return {.name = "d_type",
          .works = *has,
          .detail = *has ? "overlay mounts" : "the file system does not tell types of entries"};
}

Status TryReflink(const std::string& root) {
  const UniqueFd from(::open(root.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  const UniqueFd to(::open(root.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!from.valid() || !to.valid()) {
    return ErrnoStatus(errno, "make a file without a name");
  }
  const std::string block(4096, 'x');
  if (::pwrite(from.get(), block.data(), block.size(), 0) < 0) {
    return ErrnoStatus(errno, "write");
  }
  return ::ioctl(to.get(), FICLONE, from.get()) == 0 ? OkStatus()
                                                     : ErrnoStatus(errno, "clone a file");
}

Status TryFuse() {
  const UniqueFd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  return device.valid() ? OkStatus() : ErrnoStatus(errno, "open '/dev/fuse'");
}

Finding UserXattr(const std::string& root) {
  const StatusOr<bool> needs = NeedsUserXattr(root);
  if (!needs.ok()) {
    return FromStatus("xattrs", needs.status(), "");
  }
  return {.name = "xattrs",
          .works = true,
          .detail = *needs ? "overlay mounts with userxattr" : "trusted.*"};
}

}  // namespace

StatusOr<std::vector<Finding>> ProbeHost(const std::string& root) {
  if (!root.starts_with('/')) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "root '" + root + "': expected an absolute path");
  }
  STRATA_RETURN_IF_ERROR(OpenFile(root, O_PATH | O_DIRECTORY).status());
  return std::vector<Finding>{
      Kernel(),
      UserNamespace(),
      EntryTypes(root),
      FromStatus("overlay", ProbeOverlay(root), "snapshots of strata-overlayfs and -stargz"),
      UserXattr(root),
      FromStatus("reflink", TryReflink(root), "strata-native copies no data"),
      FromStatus("fuse", TryFuse(), "lazy layers by FUSE"),
      FromStatus(
          "erofs", ProbeErofs(root + "/" + std::string(kProbePrefix) + "stratactl"),
          "lazy layers by EROFS, where a service manager or strata-keeper keeps descriptors"),
  };
}

Status ShowProbe(const std::string& root, bool json, std::ostream& out) {
  STRATA_ASSIGN_OR_RETURN(const std::vector<Finding> findings, ProbeHost(root));
  if (json) {
    nlohmann::json list = nlohmann::json::array();
    for (const Finding& finding : findings) {
      list.push_back(
          {{"name", finding.name}, {"works", finding.works}, {"detail", finding.detail}});
    }
    out << list.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false,
                     nlohmann::json::error_handler_t::replace)
        << std::endl;
    return OkStatus();
  }
  std::vector<std::vector<std::string>> rows;
  rows.reserve(findings.size());
  for (const Finding& finding : findings) {
    rows.push_back({finding.name, finding.works ? "yes" : "no", finding.detail});
  }
  PrintTable(out, {"WHAT", "WORKS", "DETAIL"}, rows);
  return OkStatus();
}

}  // namespace strata
