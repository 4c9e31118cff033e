// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/state_root.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/fault.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/os/probe_directory.h"
#include "snapshotters/os/tree_remove.h"

namespace strata {
namespace {

constexpr std::string_view kMarkerName = "strata-root";
constexpr std::string_view kLockName = "lock";
// What is in a root besides the marker, and what a new file system has by itself (FORMAT.md).
constexpr std::array<std::string_view, 8> kOwnNames = {
    kLockName, "formats", "holder.sock", "lost+found", "metadata", "reserve", "snapshots", "trash"};
constexpr size_t kMarkerLimit = 4096;
constexpr mode_t kFolderMode = 0700;
// Free space and inodes below which a fresh root is refused: the metadata store's first pages.
constexpr uint64_t kLeastFreeBytes = 1 << 20;

Status Refuse(const std::string& path, std::string_view why) {
  return MakeStatus(StatusCode::kFailedPrecondition, "root '" + path + "' " + std::string(why));
}

struct Marker {
  std::string kind;
  std::string uuid;
};

StatusOr<Marker> ParseMarker(const std::string& path, const std::string& content) {
  const nlohmann::json fields = nlohmann::json::parse(content, nullptr, /*allow_exceptions=*/false);
  const auto text = [&fields](const char* key) {
    const auto found = fields.is_object() ? fields.find(key) : fields.end();
    return fields.is_object() && found != fields.end() && found->is_string()
               ? found->get<std::string>()
               : std::string();
  };
  const bool has_format =
      fields.is_object() && fields.contains("format") && fields["format"].is_number_integer();
  Marker marker{.kind = text("kind"), .uuid = text("uuid")};
  if (!has_format || marker.uuid.empty() || marker.kind.empty()) {
    return Refuse(path, "has a damaged marker '" + std::string(kMarkerName) +
                            "': expected JSON with format, kind and uuid");
  }
  if (fields["format"].get<int64_t>() > StateRoot::kFormat) {
    return Refuse(path, "has format " + std::to_string(fields["format"].get<int64_t>()) +
                            ", this version knows " + std::to_string(StateRoot::kFormat) +
                            ": start the version that wrote it");
  }
  return marker;
}

StatusOr<std::string> RealPath(const std::string& path) {
  char* resolved = ::realpath(path.c_str(), nullptr);
  if (resolved == nullptr) {
    return ErrnoStatus(errno, "resolve root '" + path + "'");
  }
  std::string result(resolved);
  std::free(resolved);  // realpath(3) allocates it with malloc
  return result;
}

StatusOr<std::string> NewUuid() {
  unsigned char bytes[16];
  if (::getrandom(bytes, sizeof(bytes), 0) != static_cast<ssize_t>(sizeof(bytes))) {
    return ErrnoStatus(errno, "get random bytes");
  }
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

// Whether the file system will do at all, and for a fresh root whether it has room. A root in use
// may be full: it must start, so that something can be removed.
Status CheckFileSystem(const std::string& path, int fd, const StateRootOptions& options,
                       bool fresh) {
  struct statfs kind {};
  struct statvfs space {};
  if (::fstatfs(fd, &kind) != 0 || ::fstatvfs(fd, &space) != 0) {
    return ErrnoStatus(errno, "examine root '" + path + "'");
  }
  const bool in_memory = kind.f_type == TMPFS_MAGIC || kind.f_type == RAMFS_MAGIC;
  if (in_memory && !options.allow_volatile) {
    return Refuse(path,
                  "is on tmpfs, which a reboot empties while containerd still knows its "
                  "snapshots: choose a disk, or set allow-volatile-root");
  }
  if ((space.f_flag & ST_RDONLY) != 0) {
    return Refuse(path, "is on a read-only file system: mount it read-write");
  }
  if (!fresh) {
    return OkStatus();
  }
  if (space.f_bavail * space.f_frsize < kLeastFreeBytes) {
    return MakeStatus(StatusCode::kResourceExhausted,
                      "root '" + path + "' has less than 1 MiB of free space: make room");
  }
  if (space.f_files > 0 && space.f_favail == 0) {
    return MakeStatus(StatusCode::kResourceExhausted,
                      "root '" + path + "' has no free inodes: make room");
  }
  return OkStatus();
}

// On btrfs a write to a file's old blocks takes new ones, which a full disk does not have: files
// made in `folder` are written in place instead (ioctl_iflags(2), FS_NOCOW_FL). Records carry
// checksums of their own. Other file systems do so anyway, and may refuse the flag.
void KeepInPlace(int folder) {
  struct statfs kind {};
  int flags = 0;
  if (::fstatfs(folder, &kind) == 0 && kind.f_type == BTRFS_SUPER_MAGIC &&
      ::ioctl(folder, FS_IOC_GETFLAGS, &flags) == 0) {
    flags |= FS_NOCOW_FL;
    (void)::ioctl(folder, FS_IOC_SETFLAGS, &flags);  // then a full disk refuses more than it must
  }
}

// A tmpfs that is mounted nowhere and goes with its descriptor (fsmount(2), Linux 5.2); invalid
// where the kernel or our privileges do not allow it.
UniqueFd DetachedTmpfs() {
  const UniqueFd context(static_cast<int>(::syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
  if (!context.valid() ||
      ::syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return {};
  }
  return UniqueFd(static_cast<int>(::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, 0)));
}

// Name of the anchor of the root at `path`.
std::string AnchorName(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) {
    path.remove_suffix(1);
  }
  constexpr std::string_view kDigits = "0123456789abcdef";
  const Sha256Digest digest = Sha256(path);
  std::string name = "root-";
  for (size_t i = 0; i < 8; ++i) {
    name += kDigits[digest[i] >> 4];
    name += kDigits[digest[i] & 15];
  }
  return name + ".json";
}

// 0 when there is nothing at `path`.
dev_t DeviceOf(const std::string& path) {
  struct stat found {};
  return ::stat(path.c_str(), &found) == 0 ? found.st_dev : 0;
}

}  // namespace

Status StateRoot::CheckPath(const std::string& path) {
  const auto bad = [](std::string_view why) {
    return MakeStatus(StatusCode::kInvalidArgument, why);
  };
  if (path.empty() || path.front() != '/') {
    return bad("root '" + path + "': expected an absolute path");
  }
  if (path.size() > StateRoot::kMaxPathBytes) {
    return bad("root of " + std::to_string(path.size()) + " bytes: expected at most " +
               std::to_string(StateRoot::kMaxPathBytes) + ", mount options have one page");
  }
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == ',' || c == ':' || c == '\\' || c == '"' || byte < 0x20 || byte == 0x7f) {
      return bad("root '" + path +
                 "': expected a path without ',', ':', '\\', '\"' and control characters, "
                 "which overlay mount options cannot carry");
    }
  }
  return OkStatus();
}

StatusOr<std::unique_ptr<StateRoot>> StateRoot::Open(const StateRootOptions& options) {
  STRATA_RETURN_IF_ERROR(CheckPath(options.path));
  std::unique_ptr<StateRoot> root(new StateRoot);
  STRATA_RETURN_IF_ERROR(
      Annotate(MakePath(options.path, kFolderMode), "root '" + options.path + "'"));
  STRATA_RETURN_IF_ERROR(root->Examine(options));
  STRATA_RETURN_IF_ERROR(root->Lock());
  // Again under the lock: another daemon may have made the root meanwhile.
  STRATA_RETURN_IF_ERROR(root->ReadOrPlanMarker());
  STRATA_RETURN_IF_ERROR(root->RemoveProbes());
  STRATA_RETURN_IF_ERROR(root->MakeFolders());
  root->memory_fd_ = DetachedTmpfs();
  return root;
}

StatusOr<std::string> StateRoot::KindOf(const std::string& path) {
  const std::string marker_path = path + "/" + std::string(kMarkerName);
  const StatusOr<std::string> content = ReadFileAt(AT_FDCWD, marker_path, kMarkerLimit);
  if (StatusErrno(content.status()) == ENOENT) {
    return std::string();
  }
  STRATA_RETURN_IF_ERROR(content.status());
  STRATA_ASSIGN_OR_RETURN(Marker marker, ParseMarker(path, *content));
  return std::move(marker.kind);
}

StatusOr<std::unique_ptr<StateRoot>> StateRoot::OpenStopped(const std::string& path) {
  STRATA_RETURN_IF_ERROR(CheckPath(path));
  std::unique_ptr<StateRoot> root(new StateRoot);
  STRATA_ASSIGN_OR_RETURN(root->path_, RealPath(path));
  STRATA_ASSIGN_OR_RETURN(root->fd_, OpenFile(root->path_, O_RDONLY | O_DIRECTORY));
  StatusOr<UniqueFd> lock = OpenAt(root->fd_.get(), std::string(kLockName), O_RDONLY);
  if (StatusErrno(lock.status()) == ENOENT) {
    return Refuse(path, "is none of strata: it has no file 'lock'");
  }
  STRATA_RETURN_IF_ERROR(lock.status());
  root->lock_fd_ = *std::move(lock);
  if (::flock(root->lock_fd_.get(), LOCK_EX | LOCK_NB) != 0) {
    return errno == EWOULDBLOCK ? Refuse(path, "is in use by a daemon: ask that one, by its socket")
                                : ErrnoStatus(errno, "lock root '" + path + "'");
  }
  const StatusOr<std::string> content =
      ReadFileAt(root->fd_.get(), std::string(kMarkerName), kMarkerLimit);
  if (StatusErrno(content.status()) == ENOENT) {
    return Refuse(path, "is none of strata: it has no marker '" + std::string(kMarkerName) + "'");
  }
  STRATA_RETURN_IF_ERROR(content.status());
  STRATA_ASSIGN_OR_RETURN(Marker marker, ParseMarker(path, *content));
  root->kind_ = std::move(marker.kind);
  root->uuid_ = std::move(marker.uuid);
  STRATA_ASSIGN_OR_RETURN(root->snapshots_fd_,
                          OpenAt(root->fd_.get(), "snapshots", O_RDONLY | O_DIRECTORY));
  STRATA_ASSIGN_OR_RETURN(root->trash_fd_,
                          OpenAt(root->fd_.get(), "trash", O_RDONLY | O_DIRECTORY));
  return root;
}

Status StateRoot::Check(const StateRootOptions& options) {
  STRATA_RETURN_IF_ERROR(CheckPath(options.path));
  StateRoot root;
  return root.Examine(options);
}

// Reads only. A root that is not there is refused when an anchor says that its disk is missing.
Status StateRoot::Examine(const StateRootOptions& options) {
  // The anchor is looked up by the path as it is given: a missing disk may hide a symlink's target.
  given_path_ = options.path;
  kind_ = options.kind;
  anchor_dir_ = options.anchor_dir;
  kind_folders_ = options.kind_folders;
  StatusOr<std::string> real_path = RealPath(options.path);
  if (StatusErrno(real_path.status()) == ENOENT) {
    path_ = options.path;
    return CheckAnchor();
  }
  STRATA_RETURN_IF_ERROR(real_path.status());
  path_ = *std::move(real_path);
  STRATA_RETURN_IF_ERROR(CheckPath(path_));
  STRATA_ASSIGN_OR_RETURN(fd_, OpenFile(path_, O_RDONLY | O_DIRECTORY));
  STRATA_RETURN_IF_ERROR(ReadOrPlanMarker());
  return CheckFileSystem(path_, fd_.get(), options, fresh_);
}

std::string StateRoot::lock_directory() const {
  return memory_fd_.valid() ? "/proc/self/fd/" + std::to_string(memory_fd_.get()) : "";
}

// A daemon that was killed while it tried an overlay mount has left the folder, and maybe the
// mount.
Status StateRoot::RemoveProbes() {
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> entries, DirectoryEntries(fd_.get()));
  for (const std::string& name : entries) {
    if (name.starts_with(kProbePrefix)) {
      const std::string merged = path_ + "/" + name + "/" + kProbeMountPoint;
      (void)::umount2(merged.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);  // usually nothing is there
      STRATA_RETURN_IF_ERROR(Annotate(RemoveTree(fd_.get(), name), "root '" + path_ + "'"));
    }
  }
  return OkStatus();
}

// Whose folder it is: ours with a marker, nobody's when empty, else refused. Reads only.
Status StateRoot::ReadOrPlanMarker() {
  fresh_ = false;
  uuid_.clear();
  const StatusOr<std::string> marker =
      ReadFileAt(fd_.get(), std::string(kMarkerName), kMarkerLimit);
  if (marker.ok()) {
    STRATA_ASSIGN_OR_RETURN(const Marker fields, ParseMarker(path_, *marker));
    uuid_ = fields.uuid;
    if (fields.kind != kind_) {
      return Refuse(path_, "belongs to a snapshotter of kind '" + fields.kind + "', expected '" +
                               kind_ + "': give each kind a root of its own");
    }
    return CheckAnchor();
  }
  if (StatusErrno(marker.status()) != ENOENT) {
    return Annotate(marker.status(), "root '" + path_ + "'");
  }
  STRATA_RETURN_IF_ERROR(CheckAnchor());
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> entries, DirectoryEntries(fd_.get()));
  for (const std::string& name : entries) {
    // What a start that did not come to its end has left.
    if (std::find(kOwnNames.begin(), kOwnNames.end(), name) == kOwnNames.end() &&
        !name.starts_with(kProbePrefix) && name != std::string(kMarkerName) + ".new" &&
        std::find(kind_folders_.begin(), kind_folders_.end(), name) == kind_folders_.end()) {
      return Refuse(path_, "is not empty and has no marker of strata (found '" + name +
                               "'): choose an empty folder");
    }
  }
  // A first start makes the marker before it serves, so nothing can be in there yet.
  if (const StatusOr<UniqueFd> folder = OpenAt(fd_.get(), "snapshots", O_RDONLY | O_DIRECTORY);
      folder.ok()) {
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> snapshots,
                            DirectoryEntries(folder->get()));
    if (!snapshots.empty()) {
      return Refuse(path_,
                    "has snapshots but has lost its marker '" + std::string(kMarkerName) +
                        "': restore it from a backup, or move the root away to start afresh");
    }
  }
  fresh_ = true;
  STRATA_ASSIGN_OR_RETURN(uuid_, NewUuid());
  return OkStatus();
}

// An anchor says which root was made at a path; without that root there, its disk is not.
Status StateRoot::CheckAnchor() {
  if (anchor_dir_.empty()) {
    return OkStatus();
  }
  const std::string name = anchor_dir_ + "/" + AnchorName(given_path_);
  const StatusOr<std::string> anchor = ReadFileAt(AT_FDCWD, name, kMarkerLimit);
  if (!anchor.ok()) {
    const bool absent = StatusErrno(anchor.status()) == ENOENT;
    return absent ? OkStatus() : Annotate(anchor.status(), "anchor of root '" + path_ + "'");
  }
  const nlohmann::json fields = nlohmann::json::parse(*anchor, nullptr, /*allow_exceptions=*/false);
  const std::string expected =
      fields.is_object() && fields.contains("uuid") && fields["uuid"].is_string()
          ? fields["uuid"].get<std::string>()
          : "";
  if (expected != uuid_) {
    return Refuse(path_, (uuid_.empty() ? std::string("is empty") : "carries root " + uuid_) +
                             ", but anchor '" + name + "' remembers root " + expected +
                             " here: mount its disk, or delete the anchor to use what is here");
  }
  return OkStatus();
}

Status StateRoot::Lock() {
  STRATA_ASSIGN_OR_RETURN(lock_fd_,
                          OpenAt(fd_.get(), std::string(kLockName), O_RDWR | O_CREAT, 0600));
  if (::flock(lock_fd_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      return ErrnoStatus(errno, "lock root '" + path_ + "'");
    }
    return Refuse(path_,
                  "is in use by another daemon: stop that one, or give this one a root of "
                  "its own");
  }
  return OkStatus();
}

Status StateRoot::MakeFolders() {
  for (const std::string name : {"metadata", "snapshots", "trash"}) {
    const Status made = MakeDirAt(fd_.get(), name, kFolderMode);
    if (!made.ok() && StatusErrno(made) != EEXIST) {
      return Annotate(made, "root '" + path_ + "'");
    }
    if (made.ok() && !fresh_) {
      (void)::unlinkat(fd_.get(), name.c_str(), AT_REMOVEDIR);  // as it was found
      return Refuse(path_, "has lost its folder '" + name +
                               "': restore it from a backup, or move "
                               "the root away to start afresh");
    }
  }
  STRATA_ASSIGN_OR_RETURN(snapshots_fd_, OpenAt(fd_.get(), "snapshots", O_RDONLY | O_DIRECTORY));
  STRATA_ASSIGN_OR_RETURN(trash_fd_, OpenAt(fd_.get(), "trash", O_RDONLY | O_DIRECTORY));
  if (!fresh_) {
    return OkStatus();
  }
  // What a first start that did not come to its end has left.
  STRATA_ASSIGN_OR_RETURN(const UniqueFd metadata,
                          OpenAt(fd_.get(), "metadata", O_RDONLY | O_DIRECTORY));
  for (const char* file : {"data.mdb", "lock.mdb"}) {
    if (::unlinkat(metadata.get(), file, 0) != 0 && errno != ENOENT) {
      return ErrnoStatus(errno, "remove '" + metadata_path() + "/" + file + "'");
    }
  }
  KeepInPlace(metadata.get());
  if (::fsync(fd_.get()) != 0) {
    return ErrnoStatus(errno, "fsync root '" + path_ + "'");
  }
  return OkStatus();
}

Status StateRoot::MarkComplete() {
  if (fresh_) {
    STRATA_FAULT_POINT("root.mark");
    const nlohmann::json marker = {{"format", kFormat}, {"kind", kind_}, {"uuid", uuid_}};
    STRATA_RETURN_IF_ERROR(
        WriteFileAtomicAt(fd_.get(), std::string(kMarkerName), marker.dump() + "\n", 0600));
  }
  return WriteAnchor();
}

Status StateRoot::WriteAnchor() {
  if (anchor_dir_.empty()) {
    return OkStatus();
  }
  // On the same disk an anchor would vanish together with the root, and only be litter.
  std::string existing = anchor_dir_;
  while (DeviceOf(existing) == 0 && existing.size() > 1) {
    existing.resize(std::max<size_t>(existing.rfind('/'), 1));
  }
  if (DeviceOf(existing) == DeviceOf(path_)) {
    return OkStatus();
  }
  STRATA_RETURN_IF_ERROR(
      Annotate(MakePath(anchor_dir_, kFolderMode), "anchor of root '" + path_ + "'"));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFile(anchor_dir_, O_RDONLY | O_DIRECTORY));
  const nlohmann::json anchor = {{"path", given_path_}, {"kind", kind_}, {"uuid", uuid_}};
  return WriteFileAtomicAt(folder.get(), AnchorName(given_path_), anchor.dump() + "\n", 0600);
}

}  // namespace strata
