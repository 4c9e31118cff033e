// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/mount_users.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_split.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/directory_entries.h"

namespace strata {
namespace {

// A busy node has some thousand mounts in a namespace, of up to a page each.
constexpr size_t kLongestMountinfo = size_t{64} << 20;
constexpr size_t kLongestArguments = size_t{256} << 10;
constexpr size_t kMostNamespaces = 4096;

// proc(5): space, tab, newline and backslash are written as \040 and so on.
std::string Unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '7' ? text[at] - '0' : -1;
    };
    if (text[i] == '\\' && digit(i + 1) >= 0 && digit(i + 2) >= 0 && digit(i + 3) >= 0) {
      out += static_cast<char>(digit(i + 1) * 64 + digit(i + 2) * 8 + digit(i + 3));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

struct MountLine {
  uint64_t id = 0;
  std::string device;
  std::string subtree;
  std::string mount_point;
  std::string type;
  std::string options;  // of the file system
};

// Nothing for a line that is none.
std::optional<MountLine> ParseLine(std::string_view line) {
  const size_t dash = line.find(" - ");
  if (dash == std::string_view::npos) {
    return std::nullopt;
  }
  const std::vector<std::string> left = absl::StrSplit(absl::string_view(line.data(), dash), ' ');
  const std::vector<std::string> right =
      absl::StrSplit(absl::string_view(line.data() + dash + 3, line.size() - dash - 3), ' ');
  MountLine out;
  if (left.size() < 5 || right.size() < 3 || !absl::SimpleAtoi(left[0], &out.id)) {
    return std::nullopt;
  }
  out.device = left[2];
  out.subtree = Unescape(left[3]);
  out.mount_point = Unescape(left[4]);
  out.type = right[0];
  out.options = Unescape(right[2]);
  return out;
}

// `path` relative to `top`; nothing when it is not below it.
std::optional<std::string> Below(std::string_view path, std::string_view top) {
  if (top == "/") {
    return path.size() > 1 && path.front() == '/' ? std::optional(std::string(path.substr(1)))
                                                  : std::nullopt;
  }
  if (path.size() <= top.size() + 1 || !path.starts_with(top) || path[top.size()] != '/') {
    return std::nullopt;
  }
  return std::string(path.substr(top.size() + 1));
}

// The directories of an overlay's options that are below `root`, the topmost first.
std::vector<std::string> OverlayPaths(const std::string& options, const std::string& root) {
  std::vector<std::string> upper;
  std::vector<std::string> lower;
  for (const std::string& option : std::vector<std::string>(absl::StrSplit(options, ','))) {
    const size_t equals = option.find('=');
    const std::string key = option.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
    if (key == "upperdir") {
      upper.push_back(value);
    } else if (key == "lowerdir" || key == "lowerdir+") {
      for (const std::string& path : std::vector<std::string>(absl::StrSplit(value, ':'))) {
        lower.push_back(path);
      }
    }
  }
  upper.insert(upper.end(), lower.begin(), lower.end());
  std::vector<std::string> found;
  for (const std::string& path : upper) {
    if (std::optional<std::string> below = Below(path, root); below.has_value()) {
      found.push_back(*std::move(below));
    }
  }
  return found;
}

StatusOr<std::string> ReadProc(int proc_fd, const std::string& path, size_t limit) {
  // Made by the kernel, and the process may be gone: no O_NOFOLLOW path of components is needed.
  const UniqueFd fd(::openat(proc_fd, path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    return ErrnoStatus(errno, "open '/proc/" + path + "'");
  }
  return ReadAll(fd.get(), "/proc/" + path, limit);
}

// A process that ends has nothing any more: its entries vanish one by one, and mountinfo of a
// zombie says EINVAL (mounts_open_common in fs/proc_namespace.c).
bool HasEnded(int error) {
  return error == ENOENT || error == ESRCH || error == EINVAL;
}

class Search {
 public:
  Search(std::string root, int proc_fd) : root_(std::move(root)), proc_fd_(proc_fd) {}

  Status Run() {
    STRATA_RETURN_IF_ERROR(LocateRoot());
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(proc_fd_));
    for (const std::string& name : names) {
      if (pid_t pid = 0; absl::SimpleAtoi(name, &pid) && pid > 0) {
        LookAt(name, pid);
      }
    }
    return OkStatus();
  }

  MountUsers Take() {
    for (auto& [key, view] : views_) {
      for (MountUser& user : view.users) {
        // What is mounted in `/` is what the processes of the view stand on.
        user.pids = user.mount_point == "/" ? view.pids : std::vector<pid_t>{view.pids.front()};
        user.is_here = user.mount_namespace == our_namespace_;
        found_.users.push_back(std::move(user));
      }
    }
    std::stable_partition(found_.users.begin(), found_.users.end(),
                          [](const MountUser& user) { return user.mount_point == "/"; });
    return std::move(found_);
  }

 private:
  // What processes see that share a mount namespace and a root directory.
  struct View {
    std::vector<MountUser> users;
    std::vector<pid_t> pids;
  };

  // Where the root lies on its file system, as mountinfo names such places.
  Status LocateRoot() {
    struct statx found {};
    struct stat space {};
    if (::statx(AT_FDCWD, root_.c_str(), 0, STATX_MNT_ID, &found) != 0) {
      return ErrnoStatus(errno, "examine '" + root_ + "'");
    }
    if (::fstatat(proc_fd_, "self/ns/mnt", &space, 0) == 0) {
      our_namespace_ = space.st_ino;
    }
    STRATA_ASSIGN_OR_RETURN(const std::string text,
                            ReadProc(proc_fd_, "self/mountinfo", kLongestMountinfo));
    for (const absl::string_view line : absl::StrSplit(text, '\n')) {
      const std::optional<MountLine> mount = ParseLine({line.data(), line.size()});
      if (mount.has_value() && mount->id == found.stx_mnt_id) {
        root_device_ = mount->device;
        const std::optional<std::string> below = Below(root_, mount->mount_point);
        root_subtree_ = mount->subtree;
        if (below.has_value()) {
          root_subtree_ += root_subtree_.ends_with('/') ? *below : "/" + *below;
        }
      }
    }
    return OkStatus();
  }

  void LookAt(const std::string& name, pid_t pid) {
    LookAtServer(name, pid);
    struct stat space {};
    struct stat top {};
    if (::fstatat(proc_fd_, (name + "/ns/mnt").c_str(), &space, 0) != 0 ||
        ::fstatat(proc_fd_, (name + "/root").c_str(), &top, 0) != 0) {
      found_.incomplete |= !HasEnded(errno);
      return;
    }
    const Key key{space.st_ino, top.st_dev, top.st_ino};
    auto view = views_.find(key);
    if (view == views_.end()) {
      if (views_.size() >= kMostNamespaces) {
        found_.incomplete = true;
        return;
      }
      const StatusOr<std::string> text = ReadProc(proc_fd_, name + "/mountinfo", kLongestMountinfo);
      if (!text.ok()) {
        found_.incomplete |= !HasEnded(StatusErrno(text.status()).value_or(0));
        return;
      }
      view = views_.emplace(key, View{}).first;
      view->second.users = MountUsersIn(*text, root_, root_device_, root_subtree_);
      for (MountUser& user : view->second.users) {
        user.mount_namespace = space.st_ino;
      }
    }
    if (view->second.pids.size() < kMostPids) {
      view->second.pids.push_back(pid);
    }
  }

  // The kernel does not know what a mount of fuse-overlayfs shows; its process does.
  void LookAtServer(const std::string& name, pid_t pid) {
    constexpr size_t kLongestName = 64;
    const StatusOr<std::string> command = ReadProc(proc_fd_, name + "/comm", kLongestName);
    if (!command.ok() || *command != "fuse-overlayfs\n") {
      return;
    }
    const StatusOr<std::string> text = ReadProc(proc_fd_, name + "/cmdline", kLongestArguments);
    struct stat space {};
    if (!text.ok() || ::fstatat(proc_fd_, (name + "/ns/mnt").c_str(), &space, 0) != 0) {
      return;
    }
    std::vector<std::string> words = absl::StrSplit(*text, '\0', absl::SkipEmpty());
    MountUser user;
    for (size_t i = 1; i < words.size(); ++i) {
      if (words[i - 1] == "-o") {
        std::vector<std::string> paths = OverlayPaths(words[i], root_);
        user.paths.insert(user.paths.end(), paths.begin(), paths.end());
      } else if (words[i].starts_with('/')) {
        user.mount_point = words[i];
      }
    }
    if (!user.paths.empty()) {
      user.mount_namespace = space.st_ino;
      user.pids.push_back(pid);
      found_.users.push_back(std::move(user));
    }
  }

  using Key = std::tuple<ino_t, dev_t, ino_t>;

  const std::string root_;
  const int proc_fd_;
  std::string root_device_;
  std::string root_subtree_;
  uint64_t our_namespace_ = 0;
  std::map<Key, View> views_;
  MountUsers found_;
};

}  // namespace

std::vector<MountUser> MountUsersIn(std::string_view mountinfo, const std::string& root,
                                    const std::string& root_device,
                                    const std::string& root_subtree) {
  std::vector<MountUser> users;
  for (const absl::string_view line :
       absl::StrSplit(absl::string_view(mountinfo.data(), mountinfo.size()), '\n')) {
    std::optional<MountLine> mount = ParseLine({line.data(), line.size()});
    if (!mount.has_value() || Below(mount->mount_point, root).has_value()) {
      continue;
    }
    MountUser user{.mount_point = std::move(mount->mount_point)};
    if (mount->type == "overlay") {
      user.paths = OverlayPaths(mount->options, root);
    } else if (!root_device.empty() && mount->device == root_device) {
      if (std::optional<std::string> below = Below(mount->subtree, root_subtree); below) {
        user.paths.push_back(*std::move(below));
      }
    }
    if (!user.paths.empty()) {
      users.push_back(std::move(user));
    }
  }
  return users;
}

StatusOr<MountUsers> FindMountUsers(const std::string& root) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd proc, OpenFile("/proc", O_RDONLY | O_DIRECTORY));
  Search search(root, proc.get());
  STRATA_RETURN_IF_ERROR(Annotate(search.Run(), "look for mounts of '" + root + "'"));
  return search.Take();
}

StatusOr<std::vector<std::string>> MountPointsBelow(const std::string& directory) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile("/proc/self/mountinfo", O_RDONLY));
  STRATA_ASSIGN_OR_RETURN(const std::string text,
                          ReadAll(file.get(), "/proc/self/mountinfo", kLongestMountinfo));
  std::vector<std::string> found;  // in the order in which they were mounted, as the lines are
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::optional<MountLine> mount = ParseLine(std::string_view(line.data(), line.size()));
    if (mount.has_value() && Below(mount->mount_point, directory).has_value()) {
      found.push_back(mount->mount_point);
    }
  }
  return found;
}

}  // namespace strata
