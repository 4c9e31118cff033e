// SPDX-License-Identifier: Apache-2.0
//
// StateRoot: the folder in which one daemon keeps its state, checked and locked (FORMAT.md,
// "Root"). Immutable once open; safe from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

struct StateRootOptions {
  std::string path;  // absolute; made (with its parents) when missing
  std::string kind;  // kind of snapshotter, e.g. "overlayfs"
  // Accept a root on tmpfs, whose content a reboot takes away.
  bool allow_volatile = false;
  // Where to remember roots on other file systems than this folder's own, so that a start with
  // their disk not mounted is refused instead of beginning with an empty root. Empty: do not.
  std::string anchor_dir;
  // Folders that the kind makes in a root besides ours.
  std::vector<std::string> kind_folders;
};

class StateRoot {
 public:
  // The number of FORMAT.md. A reader of format N refuses what is above N.
  static constexpr uint32_t kFormat = 1;
  // Longest root: with it, the options of an overlay with 128 layers still fit a page after
  // containerd's compaction (snapshots-contract 5.2).
  static constexpr size_t kMaxPathBytes = 512;

  // Errors, all before anything is changed but the folder made:
  //   InvalidArgument     relative, too long, or with ',' ':' '\' '"' or a control character, which
  //                       overlay's option parser would take apart
  //   FailedPrecondition  not a folder; read-only or full; on tmpfs without allow_volatile; held by
  //   another
  //                       daemon; another kind's, another program's; its disk not mounted; newer
  //                       format
  static StatusOr<std::unique_ptr<StateRoot>> Open(const StateRootOptions& options);

  // The errors that Open would have with the root as it is now, but for its lock and room in it,
  // while a daemon may be using it: changes nothing. OK: also a root that is still to be made.
  static Status Check(const StateRootOptions& options);

  // The kind of the snapshotter that has served on the root; "" for one that is still to be made.
  // FailedPrecondition for a marker that is damaged or of a newer format.
  static StatusOr<std::string> KindOf(const std::string& path);

  // Takes the lock of a root that has served and that no daemon serves, to look at it and maybe to
  // repair it: changes nothing. FailedPrecondition: a daemon holds it, or it is no root, is damaged
  // or of a newer format.
  static StatusOr<std::unique_ptr<StateRoot>> OpenStopped(const std::string& path);

  // Only what the text of a path tells: the InvalidArgument of Open.
  static Status CheckPath(const std::string& path);

  [[nodiscard]] const std::string& path() const { return path_; }  // without symlinks
  [[nodiscard]] const std::string& kind() const { return kind_; }
  [[nodiscard]] const std::string& uuid() const { return uuid_; }
  [[nodiscard]] bool fresh() const { return fresh_; }  // made by this start
  [[nodiscard]] std::string metadata_path() const { return path_ + "/metadata"; }
  // An empty folder in memory that only this process sees; "" where the kernel gives none.
  [[nodiscard]] std::string lock_directory() const;
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] int snapshots_fd() const { return snapshots_fd_.get(); }
  [[nodiscard]] int trash_fd() const { return trash_fd_.get(); }

  // A fresh root is only complete once its metadata store exists: writes the marker that says so.
  Status MarkComplete();

 private:
  StateRoot() = default;
  Status Examine(const StateRootOptions& options);
  Status Lock();
  Status ReadOrPlanMarker();
  Status CheckAnchor();
  Status WriteAnchor();
  Status MakeFolders();
  Status RemoveProbes();

  std::string given_path_;
  std::string path_;
  std::string kind_;
  std::string uuid_;
  std::string anchor_dir_;
  std::vector<std::string> kind_folders_;
  bool fresh_ = false;
  UniqueFd fd_;
  UniqueFd lock_fd_;
  UniqueFd snapshots_fd_;
  UniqueFd trash_fd_;
  UniqueFd memory_fd_;
};

}  // namespace strata
