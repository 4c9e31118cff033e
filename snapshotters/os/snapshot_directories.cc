// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/snapshot_directories.h"

#include <absl/strings/numbers.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/os/directory_entries.h"

namespace strata {
namespace {

// The number that a directory's name is; 0 for any other name, "007" too.
SnapshotId NumberOf(const std::string& name) {
  SnapshotId id = 0;
  return absl::SimpleAtoi(name, &id) && std::to_string(id) == name ? id : 0;
}

}  // namespace

SnapshotDirectories::SnapshotDirectories(const StateRoot& root, MetaStore& store,
                                         std::vector<SpareDirectories::Shape> shapes,
                                         Reaper::Options reaper)
    : root_(root),
      reaper_(root.snapshots_fd(), root.trash_fd(), reaper),
      spares_(
          root.snapshots_fd(), [&store] { return store.NextId(); }, std::move(shapes)) {
  // Every directory with a lower number is the past's.
  sweeper_ = std::thread([this, &store, first = store.FirstNewId()] { Sweep(store, first); });
}

SnapshotDirectories::~SnapshotDirectories() {
  if (sweeper_.joinable()) {
    sweeper_.join();
  }
}

const SnapshotDirectories::Swept& SnapshotDirectories::WaitSwept() {
  if (sweeper_.joinable()) {
    sweeper_.join();
  }
  return swept_;
}

std::string SnapshotDirectories::PathOf(SnapshotId id) const {
  return root_.path() + "/snapshots/" + std::to_string(id);
}

StatusOr<UniqueFd> SnapshotDirectories::Open(SnapshotId id, std::string_view folder) const {
  std::string name = std::to_string(id);
  if (!folder.empty()) {
    name += "/";
    name += folder;
  }
  StatusOr<UniqueFd> fd = OpenAt(root_.snapshots_fd(), name, O_RDONLY | O_DIRECTORY);
  if (!fd.ok()) {
    return Annotate(fd.status(), "directory '" + PathOf(id) + "'");
  }
  return fd;
}

void SnapshotDirectories::Sweep(MetaStore& store, SnapshotId first_new) {
  const auto sweep = [&]() -> Status {
    // Directories before records: a snapshot that is removed meanwhile is then discarded twice,
    // which is harmless; the other way round a new one could look like an orphan.
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                            DirectoryEntries(root_.snapshots_fd()));
    STRATA_ASSIGN_OR_RETURN(const std::vector<SnapshotId> recorded, store.Ids());
    std::vector<SnapshotId> found;
    for (const std::string& name : names) {
      const SnapshotId id = NumberOf(name);
      if (id == 0) {
        swept_.foreign.push_back(name);
      } else if (id < first_new) {
        found.push_back(id);
      }
    }
    std::sort(found.begin(), found.end());
    std::set_difference(found.begin(), found.end(), recorded.begin(), recorded.end(),
                        std::back_inserter(swept_.orphans));
    std::vector<SnapshotId> missing;
    std::set_difference(recorded.begin(), recorded.end(), found.begin(), found.end(),
                        std::back_inserter(missing));
    for (const SnapshotId id : missing) {
      if (id >= first_new) {
        continue;
      }
      // Removed since the directories were read?
      STRATA_ASSIGN_OR_RETURN(const std::vector<SnapshotRecord> now, store.Page(id - 1, 1));
      if (!now.empty() && now.front().id == id) {
        swept_.lost.push_back(id);
      }
    }
    for (const SnapshotId id : swept_.orphans) {
      STRATA_FAULT_POINT("sweep.orphan");
      reaper_.Discard(id);
    }
    reaper_.Kick();
    return OkStatus();
  };
  swept_.status = sweep();
  if (!swept_.status.ok()) {
    LogWarn("cannot sweep what an earlier run left, ignoring",
            {{"error", std::string(StatusMessage(swept_.status))}});
  }
  if (!swept_.orphans.empty()) {
    LogInfo("removing directories without a snapshot, left by an earlier run",
            {{"count", std::to_string(swept_.orphans.size())}});
  }
  for (const SnapshotId id : swept_.lost) {
    LogError("a snapshot has lost its directory", {{"directory", PathOf(id)}});
  }
  for (const std::string& name : swept_.foreign) {
    LogWarn("leaving a file alone that is not ours",
            {{"path", root_.path() + "/snapshots/" + name}});
  }
}

}  // namespace strata
