// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/root_check.h"

#include <absl/strings/numbers.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <set>
#include <unordered_set>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/disk_usage.h"
#include "snapshotters/os/lazy_layer_link.h"
#include "snapshotters/os/mount_users.h"
#include "snapshotters/os/parent_chain.h"
#include "snapshotters/os/probe_directory.h"

namespace strata {
namespace {

constexpr size_t kPageRecords = 1000;
// What every root has (FORMAT.md), and what a new file system has by itself.
constexpr std::array<std::string_view, 9> kRootNames = {"formats",    "holder.sock", "lock",
                                                        "lost+found", "metadata",    "reserve",
                                                        "snapshots",  "trash",       "strata-root"};
constexpr std::array<std::string_view, 3> kStargzNames = {"fuse", "l", "layers"};
constexpr std::array<std::string_view, 2> kMetadataNames = {"data.mdb", "lock.mdb"};

template <typename Names>
bool IsOneOf(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The number that a directory's name is; 0 for any other name, "007" too.
uint64_t NumberOf(const std::string& name) {
  uint64_t number = 0;
  return absl::SimpleAtoi(name, &number) && std::to_string(number) == name ? number : 0;
}

bool Exists(int dirfd, const std::string& name) {
  struct stat found {};
  return ::fstatat(dirfd, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0;
}

// The directory that a path below the root ("snapshots/5/fs") is in or is; 0: none of `top`.
SnapshotId IdIn(std::string_view path, std::string_view top) {
  if (!path.starts_with(top)) {
    return 0;
  }
  path.remove_prefix(top.size());
  return NumberOf(std::string(path.substr(0, path.find('/'))));
}

std::string DirectoryOf(SnapshotId id) {
  return "snapshots/" + std::to_string(id);
}

std::string Describe(const MountUser& user) {
  std::string text = "mounted on " + ShowName(user.mount_point) + ", seen by";
  for (const pid_t pid : user.pids) {
    text += " " + std::to_string(pid);
  }
  return text;
}

class Check {
 public:
  Check(const CallContext& call, MetaStore& store, const RootCheckOptions& options)
      : call_(call), store_(store), options_(options) {}

  StatusOr<RootCheck> Run() {
    STRATA_ASSIGN_OR_RETURN(root_, OpenFile(options_.path, O_RDONLY | O_DIRECTORY));
    STRATA_ASSIGN_OR_RETURN(snapshots_, Open("snapshots"));
    // Directories before records, as the daemon's sweep: the other way round the directory of a
    // snapshot that is made meanwhile could look like one without a record.
    STRATA_RETURN_IF_ERROR(ListDirectories());
    STRATA_ASSIGN_OR_RETURN(users_, FindMountUsers(options_.path));
    STRATA_RETURN_IF_ERROR(CheckRecords());
    STRATA_RETURN_IF_ERROR(CheckMounts());
    STRATA_RETURN_IF_ERROR(CheckOrphans());
    STRATA_RETURN_IF_ERROR(CheckForeign());
    STRATA_RETURN_IF_ERROR(CheckTrash());
    if (options_.kind == "stargz") {
      STRATA_RETURN_IF_ERROR(CheckMountPoints());
    }
    return std::move(result_);
  }

 private:
  [[nodiscard]] StatusOr<UniqueFd> Open(const std::string& name) const {
    return OpenAt(root_.get(), name, O_RDONLY | O_DIRECTORY);
  }

  [[nodiscard]] bool served() const { return options_.served_from != 0; }
  // Whether what has this number may be under way: it is the daemon's.
  [[nodiscard]] bool IsUnderWay(SnapshotId id) const {
    return served() && id >= options_.served_from;
  }

  void Report(RootFinding finding) {
    if (result_.findings.size() >= RootCheck::kMostFindings) {
      result_.truncated = true;
    } else {
      result_.findings.push_back(std::move(finding));
    }
  }

  void TellProgress() const {
    if (options_.progress) {
      options_.progress(result_.records, result_.directories);
    }
  }

  // What `name` in `dirfd` takes; 0 when it cannot be found out.
  [[nodiscard]] StatusOr<uint64_t> BytesOf(int dirfd, const std::string& name) const {
    TellProgress();
    StatusOr<UniqueFd> fd = OpenAt(dirfd, name, O_PATH);
    if (!fd.ok()) {
      return 0;
    }
    struct stat found {};
    if (::fstat(fd->get(), &found) != 0 || !S_ISDIR(found.st_mode)) {
      return static_cast<uint64_t>(found.st_blocks) * 512;
    }
    const StatusOr<Usage> usage = DiskUsage(call_, fd->get());
    STRATA_RETURN_IF_ERROR(call_.Check());
    return usage.ok() ? static_cast<uint64_t>(usage->size) : 0;
  }

  Status ListDirectories() {
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                            DirectoryEntries(snapshots_.get()));
    for (const std::string& name : names) {
      if (const SnapshotId id = NumberOf(name); id != 0) {
        directories_.push_back(id);
      } else {
        foreign_.push_back("snapshots/" + name);
      }
    }
    std::sort(directories_.begin(), directories_.end());
    result_.directories = directories_.size();
    return OkStatus();
  }

  Status CheckRecords() {
    SnapshotId after = 0;
    while (true) {
      STRATA_RETURN_IF_ERROR(call_.Check());
      STRATA_ASSIGN_OR_RETURN(const std::vector<SnapshotRecord> page,
                              store_.Page(after, kPageRecords));
      if (page.empty()) {
        break;
      }
      after = page.back().id;
      for (const SnapshotRecord& record : page) {
        recorded_.push_back(record.id);
        if (!record.chain.empty()) {
          parents_.insert(record.chain.front());
        }
        STRATA_RETURN_IF_ERROR(CheckParent(record));
        STRATA_RETURN_IF_ERROR(CheckDirectory(record));
      }
      result_.records += page.size();
      TellProgress();
    }
    // Only now is it known who has children.
    for (RootFinding& finding : lost_) {
      finding.repairable = !parents_.contains(finding.id);
      finding.repair = finding.repairable ? "its record is removed"
                                          : "others are on it: remove those first, and it after "
                                            "them, by way of its client";
      Report(std::move(finding));
    }
    return OkStatus();
  }

  // Whether the record is still as it was read.
  StatusOr<bool> IsUnchanged(const SnapshotRecord& record) {
    STRATA_ASSIGN_OR_RETURN(const std::optional<SnapshotRecord> now, store_.Find(record.info.name));
    return now.has_value() && now->id == record.id && now->info.parent == record.info.parent &&
           now->chain == record.chain;
  }

  StatusOr<bool> HasRecord(SnapshotId id) {
    STRATA_ASSIGN_OR_RETURN(const std::vector<SnapshotRecord> page, store_.Page(id - 1, 1));
    return !page.empty() && page.front().id == id;
  }

  Status CheckParent(const SnapshotRecord& record) {
    const auto find = [this](std::string_view name) { return store_.Find(name); };
    STRATA_ASSIGN_OR_RETURN(const bool fits, FitsParent(record, find));
    if (fits) {
      return OkStatus();
    }
    STRATA_ASSIGN_OR_RETURN(const ParentChain right, ChainOf(record, find));
    STRATA_ASSIGN_OR_RETURN(const bool unchanged, IsUnchanged(record));
    if (!unchanged || (right.lost.empty() && right.ids == record.chain)) {
      return OkStatus();
    }
    RootFinding finding{.problem = RootProblem::kWrongParent,
                        .id = record.id,
                        .name = record.info.name,
                        .path = DirectoryOf(record.id)};
    if (right.lost.empty()) {
      finding.detail = "it is recorded to be on " + ShowChain(record.chain) + ", but its parent " +
                       ShowName(record.info.parent) + " is " + ShowChain(right.ids);
      finding.repair = "it is recorded to be on " + ShowChain(right.ids);
      finding.repairable = true;
    } else {
      finding.problem = RootProblem::kLostParent;
      finding.detail = right.lost;
      finding.repair =
          "save its files if they are needed, and remove it and what is on it by way of its client";
    }
    Report(std::move(finding));
    return OkStatus();
  }

  // What is missing of the record's directory; "" when it is as it should be.
  [[nodiscard]] std::string MissingOf(SnapshotId id) const {
    const std::string name = std::to_string(id);
    if (!std::binary_search(directories_.begin(), directories_.end(), id) &&
        !Exists(snapshots_.get(), name)) {
      return "its directory is not there";
    }
    const bool whole = options_.kind == "native" || Exists(snapshots_.get(), name + "/fs") ||
                       (options_.kind == "stargz" && Exists(snapshots_.get(), name + "/layer")) ||
                       // Went since it was listed.
                       !Exists(snapshots_.get(), name);
    return whole ? "" : "its directory has no 'fs'";
  }

  Status CheckDirectory(const SnapshotRecord& record) {
    RootFinding finding{.problem = RootProblem::kNoDirectory,
                        .id = record.id,
                        .name = record.info.name,
                        .path = DirectoryOf(record.id),
                        .detail = MissingOf(record.id)};
    if (finding.detail.empty()) {
      return options_.kind == "stargz" ? CheckLayer(record) : OkStatus();
    }
    STRATA_ASSIGN_OR_RETURN(const bool unchanged, IsUnchanged(record));
    if (unchanged) {
      lost_.push_back(std::move(finding));
    }
    return OkStatus();
  }

  // stargz: snapshots/<id>/layer -> ../../l/<n>, whose bytes are in layers/<n>.
  Status CheckLayer(const SnapshotRecord& record) {
    const std::optional<std::string> link = LazyLayerLink(snapshots_.get(), record.id);
    if (!link.has_value()) {
      return OkStatus();  // an ordinary layer
    }
    const uint64_t number = LayerIn(*link);
    if (number != 0 && Exists(root_.get(), "layers/" + std::to_string(number))) {
      return OkStatus();
    }
    STRATA_ASSIGN_OR_RETURN(const bool unchanged, IsUnchanged(record));
    if (unchanged) {
      Report({.problem = RootProblem::kLostLayer,
              .id = record.id,
              .name = record.info.name,
              .path = DirectoryOf(record.id) + "/layer",
              .detail = "it stands for " + ShowName(*link) + ", which is not in layers/",
              .repair = "remove it and what is on it by way of its client, and pull the image "
                        "again"});
    }
    return OkStatus();
  }

  // Numbers without a record that a mount shows, and whether the mount shows trash.
  Status CheckMounts() {
    std::vector<RootFinding> found;
    STRATA_RETURN_IF_ERROR(MountedWithoutRecord(users_.users, found));
    if (found.empty()) {
      return OkStatus();
    }
    // What is unmounted and removed meanwhile is gone from a second look.
    STRATA_ASSIGN_OR_RETURN(const MountUsers again, FindMountUsers(options_.path));
    std::vector<RootFinding> confirmed;
    STRATA_RETURN_IF_ERROR(MountedWithoutRecord(again.users, confirmed));
    for (RootFinding& finding : confirmed) {
      if (std::find(found.begin(), found.end(), finding) != found.end()) {
        mounted_.insert(finding.path);
        Report(std::move(finding));
      }
    }
    return OkStatus();
  }

  Status MountedWithoutRecord(const std::vector<MountUser>& users,
                              std::vector<RootFinding>& found) {
    for (const MountUser& user : users) {
      std::set<std::string> seen;
      for (const std::string& path : user.paths) {
        const SnapshotId id = IdIn(path, "snapshots/");
        const SnapshotId trash = IdIn(path, "trash/");
        if (id != 0) {
          STRATA_ASSIGN_OR_RETURN(const bool has_record, HasRecord(id));
          if (has_record) {
            continue;
          }
        }
        const std::string place = id != 0      ? DirectoryOf(id)
                                  : trash != 0 ? "trash/" + std::to_string(trash)
                                               : "";
        if (!place.empty() && seen.insert(place).second) {
          found.push_back({.problem = RootProblem::kMounted,
                           .id = id != 0 ? id : trash,
                           .path = place,
                           .detail = Describe(user),
                           .repair = "end those who use it, and unmount it: then it can go"});
        }
      }
    }
    return OkStatus();
  }

  Status CheckOrphans() {
    std::vector<SnapshotId> orphans;
    std::sort(recorded_.begin(), recorded_.end());
    std::set_difference(directories_.begin(), directories_.end(), recorded_.begin(),
                        recorded_.end(), std::back_inserter(orphans));
    for (const SnapshotId id : orphans) {
      STRATA_RETURN_IF_ERROR(call_.Check());
      const std::string path = DirectoryOf(id);
      if (IsUnderWay(id) || mounted_.contains(path)) {
        continue;
      }
      STRATA_ASSIGN_OR_RETURN(const uint64_t bytes, BytesOf(snapshots_.get(), std::to_string(id)));
      STRATA_ASSIGN_OR_RETURN(const bool has_record, HasRecord(id));
      if (has_record || !Exists(snapshots_.get(), std::to_string(id))) {
        continue;
      }
      Report({.problem = RootProblem::kNoRecord,
              .id = id,
              .path = path,
              .bytes = bytes,
              .detail = "no snapshot has this directory",
              .repair = served() ? "the daemon removes it: soon, or when it starts the next time"
                                 : "it is moved to trash/ and removed",
              .repairable = !served(),
              .harmless = served()});
    }
    return OkStatus();
  }

  Status CheckForeign() {
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(root_.get()));
    for (const std::string& name : names) {
      // A file that is being replaced, or was when the daemon was killed: NAME.new.
      const std::string_view known =
          name.ends_with(".new") ? std::string_view(name).substr(0, name.size() - 4) : name;
      const bool ours = IsOneOf(kRootNames, known) || name.starts_with(kProbePrefix) ||
                        (options_.kind == "stargz" && IsOneOf(kStargzNames, name));
      if (!ours) {
        foreign_.push_back(name);
      }
    }
    STRATA_ASSIGN_OR_RETURN(const UniqueFd metadata, Open("metadata"));
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> files, DirectoryEntries(metadata.get()));
    for (const std::string& name : files) {
      if (!IsOneOf(kMetadataNames, name)) {
        foreign_.push_back("metadata/" + name);
      }
    }
    for (const std::string& path : foreign_) {
      STRATA_ASSIGN_OR_RETURN(const uint64_t bytes, ForeignBytes(path));
      if (StillThere(path)) {
        Report({.problem = RootProblem::kForeign,
                .path = path,
                .bytes = bytes,
                .detail = "it is none of ours",
                .repair = "it is left alone: remove it by hand if nobody needs it",
                .harmless = true});
      }
    }
    return OkStatus();
  }

  // `path` has at most one '/', and its last component may be any bytes.
  [[nodiscard]] StatusOr<uint64_t> ForeignBytes(const std::string& path) const {
    const size_t slash = path.find('/');
    if (slash == std::string::npos) {
      return BytesOf(root_.get(), path);
    }
    STRATA_ASSIGN_OR_RETURN(const UniqueFd folder, Open(path.substr(0, slash)));
    return BytesOf(folder.get(), path.substr(slash + 1));
  }

  [[nodiscard]] bool StillThere(const std::string& path) const { return Exists(root_.get(), path); }

  Status CheckTrash() {
    if (served()) {
      return OkStatus();
    }
    STRATA_ASSIGN_OR_RETURN(const UniqueFd trash, Open("trash"));
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(trash.get()));
    for (const std::string& name : names) {
      const std::string path = "trash/" + name;
      if (mounted_.contains(path)) {
        continue;
      }
      STRATA_ASSIGN_OR_RETURN(const uint64_t bytes, BytesOf(trash.get(), name));
      Report({.problem = RootProblem::kTrash,
              .id = NumberOf(name),
              .path = path,
              .bytes = bytes,
              .detail = "of a snapshot that was removed",
              .repair = "it is removed, as by the next start of the daemon",
              .repairable = true,
              .harmless = true});
    }
    return OkStatus();
  }

  // stargz: the directories in l/ on which layers are mounted. Those without a layer are left by a
  // daemon that was killed between the two.
  Status CheckMountPoints() {
    const StatusOr<UniqueFd> places = Open("l");
    if (!places.ok()) {
      return StatusErrno(places.status()) == ENOENT ? OkStatus() : places.status();
    }
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(places->get()));
    for (const std::string& name : names) {
      const std::string path = "l/" + name;
      if (NumberOf(name) != 0 && (served() || Exists(root_.get(), "layers/" + name))) {
        continue;  // a daemon makes and removes them as layers come and go
      }
      if (NumberOf(name) == 0) {
        Report({.problem = RootProblem::kForeign,
                .path = path,
                .detail = "it is none of ours",
                .repair = "it is left alone: remove it by hand if nobody needs it",
                .harmless = true});
        continue;
      }
      Report({.problem = RootProblem::kNoLayer,
              .path = path,
              .detail = "there is no layer of this number",
              .repair = "it is removed if it is an empty directory and nothing is mounted on it",
              .repairable = true,
              .harmless = true});
    }
    return OkStatus();
  }

  const CallContext& call_;
  MetaStore& store_;
  const RootCheckOptions& options_;
  UniqueFd root_;
  UniqueFd snapshots_;
  MountUsers users_;
  std::vector<SnapshotId> directories_;  // sorted
  std::vector<SnapshotId> recorded_;
  std::unordered_set<SnapshotId> parents_;
  std::vector<RootFinding> lost_;
  std::vector<std::string> foreign_;  // paths below the root
  std::set<std::string> mounted_;     // directories that are mounted and have no record
  RootCheck result_;
};

}  // namespace

StatusOr<RootCheck> CheckRoot(const CallContext& call, MetaStore& store,
                              const RootCheckOptions& options) {
  StatusOr<RootCheck> result = Check(call, store, options).Run();
  if (!result.ok()) {
    return Annotate(result.status(), "check root '" + options.path + "'");
  }
  return result;
}

}  // namespace strata
