// SPDX-License-Identifier: Apache-2.0
#include "client/stratactl/probe.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <utility>

#include "client/stratactl/table.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/lazy/erofs_probe.h"
#include "snapshotters/os/fanotify_group.h"
#include "snapshotters/os/fuse_overlay_probe.h"
#include "snapshotters/os/fuse_probe.h"
#include "snapshotters/os/idmap_probe.h"
#include "snapshotters/os/overlay_probe.h"
#include "snapshotters/os/probe_directory.h"
#include "snapshotters/os/snapshotter_choice.h"
#include "snapshotters/os/state_root.h"

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

Finding Fuse(const std::string& root) {
  StatusOr<FuseOffer> offer = ProbeFuse(root);
  if (!offer.ok()) {
    return FromStatus("fuse", offer.status(), "");
  }
  return {.name = "fuse",
          .works = true,
          .detail = "lazy layers by FUSE " + std::to_string(offer->major) + "." +
                    std::to_string(offer->minor),
          .more = std::move(offer->features)};
}

Finding UserXattr(const std::string& root) {
  const StatusOr<bool> needs = NeedsUserXattr(root);
  Finding finding = FromStatus("userxattr", ProbeOverlay(root, {"userxattr"}),
                               "overlay mounts in user namespaces");
  if (finding.works && needs.ok()) {
    finding.detail += *needs ? ", needed here" : ", not needed here";
  }
  return finding;
}

// Whether the kernel would ask about reads of a file in the root.
Status TryEvents(const std::string& root) {
  STRATA_ASSIGN_OR_RETURN(const FanotifyGroup group, FanotifyGroup::Create());
  const UniqueFd file(::open(root.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  return file.valid() ? group.Mark(file.get()) : ErrnoStatus(errno, "make a file without a name");
}

Finding Auto(const std::string& root) {
  StatusOr<SnapshotterChoice> choice = ChooseSnapshotter(root);
  if (!choice.ok()) {
    return FromStatus("auto", choice.status(), "");
  }
  const StatusOr<std::string> begun_with = StateRoot::KindOf(root);
  const bool is_remembered = begun_with.ok() && !begun_with->empty();
  return {.name = "auto",
          .works = true,
          .detail = choice->kind + (is_remembered ? ", which the root was begun with" : ""),
          .more = std::move(choice->reasons)};
}

// Lines of some of the words each; whatever is longer has a line of its own.
std::vector<std::string> Wrapped(const std::vector<std::string>& words) {
  constexpr size_t kLine = 60;
  std::vector<std::string> lines;
  for (const std::string& word : words) {
    if (lines.empty() || lines.back().size() + 2 + word.size() > kLine) {
      lines.push_back(word);
    } else {
      lines.back() += ", " + word;
    }
  }
  return lines;
}

}  // namespace

StatusOr<std::vector<Finding>> ProbeHost(const std::string& root) {
  if (!root.starts_with('/')) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "root '" + root + "': expected an absolute path");
  }
  STRATA_RETURN_IF_ERROR(OpenFile(root, O_PATH | O_DIRECTORY).status());
  const std::string scratch = root + "/" + std::string(kProbePrefix) + "stratactl";
  return std::vector<Finding>{
      Kernel(),
      UserNamespace(),
      EntryTypes(root),
      FromStatus("overlay", ProbeOverlay(root), "snapshots of strata-overlayfs and -stargz"),
      UserXattr(root),
      FromStatus("idmap", ProbeIdmappedMounts(root),
                 "layers in user namespaces of containers, without changes of owners"),
      FromStatus("reflink", TryReflink(root), "strata-native copies no data"),
      Fuse(root),
      FromStatus("fuse-overlayfs", ProbeFuseOverlay(root), "snapshots of strata-fuse-overlayfs"),
      FromStatus("erofs-file", ProbeErofsFile(scratch), "complete lazy layers by EROFS"),
      FromStatus("fanotify", TryEvents(root), "events before a file of the root is read"),
      FromStatus(
          "erofs", ProbeErofs(scratch),
          "lazy layers by EROFS, where a service manager or strata-keeper keeps descriptors"),
      Auto(root),
  };
}

Status ShowProbe(const std::string& root, const Output& output) {
  STRATA_ASSIGN_OR_RETURN(const std::vector<Finding> findings, ProbeHost(root));
  if (output.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const Finding& finding : findings) {
      list.push_back({{"name", finding.name},
                      {"works", finding.works},
                      {"detail", finding.detail},
                      {"more", finding.more}});
    }
    PrintJson(output.out, list);
    return OkStatus();
  }
  std::vector<std::vector<std::string>> rows;
  for (const Finding& finding : findings) {
    rows.push_back({finding.name, finding.works ? "yes" : "no", finding.detail});
    for (const std::string& line : Wrapped(finding.more)) {
      rows.push_back({"", "", line});
    }
  }
  PrintTable(output.out, {"WHAT", "WORKS", "IN " + root}, rows, output.terminal.columns);
  return OkStatus();
}

}  // namespace strata
