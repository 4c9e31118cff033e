// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/mount_ops.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/mount_helper.h"

namespace strata {
namespace {

constexpr size_t kMountDataBytes = 4096;      // mount(2): one page, with the NUL byte at its end
constexpr size_t kFsconfigStringBytes = 256;  // fsconfig(2), with the NUL byte at its end

struct FlagOption {
  std::string_view name;
  uint64_t flag;
  bool clears;
};

constexpr FlagOption kFlagOptions[] = {
    {"async", MS_SYNCHRONOUS, true},
    {"atime", MS_NOATIME, true},
    {"bind", MS_BIND, false},
    {"defaults", 0, false},
    {"dev", MS_NODEV, true},
    {"diratime", MS_NODIRATIME, true},
    {"dirsync", MS_DIRSYNC, false},
    {"exec", MS_NOEXEC, true},
    {"mand", MS_MANDLOCK, false},
    {"noatime", MS_NOATIME, false},
    {"nodev", MS_NODEV, false},
    {"nodiratime", MS_NODIRATIME, false},
    {"noexec", MS_NOEXEC, false},
    {"nomand", MS_MANDLOCK, true},
    {"norelatime", MS_RELATIME, true},
    {"nostrictatime", MS_STRICTATIME, true},
    {"nosuid", MS_NOSUID, false},
    {"rbind", MS_BIND | MS_REC, false},
    {"relatime", MS_RELATIME, false},
    {"remount", MS_REMOUNT, false},
    {"ro", MS_RDONLY, false},
    {"rw", MS_RDONLY, true},
    {"strictatime", MS_STRICTATIME, false},
    {"suid", MS_NOSUID, true},
    {"sync", MS_SYNCHRONOUS, false},
};

// The flags that belong to one mount rather than to its file system, in each of the three ways in
// which the kernel writes them.
struct MountFlag {
  uint64_t mount_flag;
  uint64_t attribute;
  uint64_t statvfs_flag;
};

constexpr MountFlag kMountFlags[] = {
    {MS_RDONLY, MOUNT_ATTR_RDONLY, ST_RDONLY},
    {MS_NOSUID, MOUNT_ATTR_NOSUID, ST_NOSUID},
    {MS_NODEV, MOUNT_ATTR_NODEV, ST_NODEV},
    {MS_NOEXEC, MOUNT_ATTR_NOEXEC, ST_NOEXEC},
    {MS_NODIRATIME, MOUNT_ATTR_NODIRATIME, ST_NODIRATIME},
    {MS_NOATIME, MOUNT_ATTR_NOATIME, ST_NOATIME},
    {MS_RELATIME, MOUNT_ATTR_RELATIME, ST_RELATIME},
    // No statvfs flag: it is what remains without the other two.
    {MS_STRICTATIME, MOUNT_ATTR_STRICTATIME, 0},
};
// These are alternatives, and as attributes a number rather than bits (mount_setattr(2)).
constexpr uint64_t kAccessTimeFlags = MS_NOATIME | MS_RELATIME | MS_STRICTATIME;
constexpr uint64_t kPerMountFlags =
    kAccessTimeFlags | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NODIRATIME;

// One mount, its options told apart.
struct Request {
  std::string type;
  std::string source;
  std::string shown_target;
  uint64_t flags = 0;
  std::vector<std::string> data;
};

Status Failed(int error, const Request& request, std::string_view step = "") {
  std::string action = "mount " + request.type + " on " + ShowName(request.shown_target);
  if (!step.empty()) {
    action += ": ";
    action += step;
  }
  return ErrnoStatus(error, action);
}

StatusOr<Request> Parse(const Mount& mount, const std::string& shown_target) {
  Request request{mount.type, mount.source, shown_target, 0, {}};
  for (const std::string& option : mount.options) {
    if (option.starts_with("uidmap=") || option.starts_with("gidmap=")) {
      return MakeStatus(StatusCode::kUnimplemented,
                        "mount " + mount.type + " on " + ShowName(shown_target) + ": option '" +
                            option + "' needs an id-mapped mount, which is not built in");
    }
    const auto* known = std::find_if(std::begin(kFlagOptions), std::end(kFlagOptions),
                                     [&](const FlagOption& flag) { return flag.name == option; });
    if (known == std::end(kFlagOptions)) {
      request.data.push_back(option);
    } else if (known->clears) {
      request.flags &= ~known->flag;
    } else {
      request.flags &= (known->flag & kAccessTimeFlags) != 0 ? ~kAccessTimeFlags : ~uint64_t{0};
      request.flags |= known->flag;  // of alternatives the last one counts
    }
  }
  if (request.type == "bind") {
    request.flags |= MS_BIND;
  }
  return request;
}

uint64_t AttributesOf(uint64_t flags) {
  uint64_t attributes = 0;
  for (const MountFlag& flag : kMountFlags) {
    attributes |= (flags & flag.mount_flag) != 0 ? flag.attribute : 0;
  }
  return attributes;
}

std::string Join(const std::vector<std::string>& options) {
  std::string data;
  for (const std::string& option : options) {
    data += (data.empty() ? "" : ",") + option;
  }
  return data;
}

// Where a mount goes, opened so that nothing can be swapped under us. After a mount the same names
// lead to the new mount's root, hence a second call.
StatusOr<UniqueFd> OpenTarget(const std::string& target, const std::string& below) {
  STRATA_ASSIGN_OR_RETURN(UniqueFd top, OpenFile(target, O_PATH | O_DIRECTORY));
  if (below.empty()) {
    return top;
  }
  return OpenBeneath(top.get(), below, O_PATH);
}

std::string PathOfFd(int fd) {
  return "/proc/self/fd/" + std::to_string(fd);
}

// --- binds

// Adds the flags of `request` to the mount `fd` and takes none away: those that a more privileged
// user namespace has locked must be there in any remount (mount_namespaces(7)).
Status RestrictBind(const Request& request, int fd) {
  mount_attr attributes{};
  attributes.attr_set = AttributesOf(request.flags);
  if ((request.flags & kAccessTimeFlags) != 0) {
    attributes.attr_clr = MOUNT_ATTR__ATIME;
  }
  if (::syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) == 0) {
    return OkStatus();
  }
  // Before Linux 5.12, or under a seccomp profile older than the call.
  if (errno != ENOSYS && errno != EPERM) {
    return Failed(errno, request, "set its flags");
  }
  struct statvfs now {};
  if (::fstatvfs(fd, &now) != 0) {
    return Failed(errno, request, "read its flags");
  }
  uint64_t flags = MS_REMOUNT | MS_BIND;
  const bool sets_access_time = (request.flags & kAccessTimeFlags) != 0;
  for (const MountFlag& flag : kMountFlags) {
    const bool keeps = (now.f_flag & flag.statvfs_flag) != 0 &&
                       ((flag.mount_flag & kAccessTimeFlags) == 0 || !sets_access_time);
    flags |= keeps || (request.flags & flag.mount_flag) != 0 ? flag.mount_flag : 0;
  }
  if (::mount(nullptr, PathOfFd(fd).c_str(), nullptr, flags, nullptr) != 0) {
    return Failed(errno, request, "remount with its flags");
  }
  return OkStatus();
}

// --- overlays whose options do not fit one page

// What the kernel wrote about the failure, "" for nothing.
std::string ReadContextLog(int context) {
  std::string log;
  char line[1024];
  // One message a read, "e TEXT" for an error; ENODATA after the last.
  for (ssize_t size = 0; (size = ::read(context, line, sizeof(line))) > 0;) {
    std::string_view text(line, static_cast<size_t>(size));
    text = text.substr(text.size() > 2 && text[1] == ' ' ? 2 : 0);
    while (!text.empty() && text.back() == '\n') {
      text.remove_suffix(1);
    }
    log += log.empty() ? "" : "; ";
    log += text;
  }
  return log;
}

// "a:b" with '\' before a ':' or '\' that belongs to a name (overlayfs.rst).
std::vector<std::string> SplitLayers(std::string_view list) {
  std::vector<std::string> layers(1);
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] == ':') {
      layers.emplace_back();
    } else {
      i += list[i] == '\\' && i + 1 < list.size() ? 1 : 0;
      layers.back() += list[i];
    }
  }
  return layers;
}

std::string EscapeLayer(std::string_view layer) {
  std::string escaped;
  for (const char c : layer) {
    if (c == ':' || c == '\\') {
      escaped += '\\';
    }
    escaped += c;
  }
  return escaped;
}

std::optional<std::string_view> ValueOf(std::string_view option, std::string_view key) {
  if (!option.starts_with(key) || option.substr(key.size(), 1) != "=") {
    return std::nullopt;
  }
  return option.substr(key.size() + 1);
}

// A mount by fsopen(2) and its relatives. They go by number: C libraries of the kernels that lack
// them lack them too.
class OverlayContext {
 public:
  explicit OverlayContext(const Request& request) : request_(request) {}

  // Unimplemented where this kernel cannot: the caller has another way.
  Status MountOn(int target);

 private:
  Status Configure();
  Status SetOption(const std::string& option);
  Status SetPath(const char* key, const std::string& path);
  Status Set(unsigned command, const char* key, const void* value, int aux);
  [[nodiscard]] Status Explain(int error, std::string_view step) const;

  const Request& request_;
  UniqueFd context_;
};

Status OverlayContext::Explain(int error, std::string_view step) const {
  const std::string log = ReadContextLog(context_.get());
  // EINVAL: "lowerdir+" unknown to this overlayfs, or, before overlayfs had its own parser (6.5),
  // more than a page collected. Whatever else it may be, the other way will meet it again.
  if (error == EINVAL) {
    return MakeStatus(StatusCode::kUnimplemented,
                      "mount " + request_.type + " on " + ShowName(request_.shown_target) + ": " +
                          std::string(step) + ": " +
                          (log.empty() ? std::string("Invalid argument") : log));
  }
  return Failed(error, request_, log.empty() ? std::string(step) : std::string(step) + ": " + log);
}

Status OverlayContext::Set(unsigned command, const char* key, const void* value, int aux) {
  if (::syscall(SYS_fsconfig, context_.get(), command, key, value, aux) == 0) {
    return OkStatus();
  }
  const int error = errno;
  return Explain(error, key == nullptr ? "create" : "option '" + std::string(key) + "'");
}

Status OverlayContext::SetPath(const char* key, const std::string& path) {
  if (path.size() < kFsconfigStringBytes) {
    return Set(FSCONFIG_SET_STRING, key, path.c_str(), 0);
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd layer, OpenFile(path, O_RDONLY | O_DIRECTORY));
  return Set(FSCONFIG_SET_FD, key, nullptr, layer.get());  // Linux 6.13
}

Status OverlayContext::SetOption(const std::string& option) {
  if (const auto lower = ValueOf(option, "lowerdir")) {
    for (const std::string& layer : SplitLayers(*lower)) {
      STRATA_RETURN_IF_ERROR(SetPath("lowerdir+", layer));
    }
    return OkStatus();
  }
  for (const char* key : {"upperdir", "workdir"}) {
    if (const auto path = ValueOf(option, key)) {
      return SetPath(key, std::string(*path));
    }
  }
  const size_t equals = option.find('=');
  if (equals == std::string::npos) {
    return Set(FSCONFIG_SET_FLAG, option.c_str(), nullptr, 0);
  }
  return Set(FSCONFIG_SET_STRING, option.substr(0, equals).c_str(), option.c_str() + equals + 1, 0);
}

Status OverlayContext::Configure() {
  STRATA_RETURN_IF_ERROR(Set(FSCONFIG_SET_STRING, "source", request_.source.c_str(), 0));
  constexpr std::pair<uint64_t, const char*> kSuperblockFlags[] = {
      {MS_RDONLY, "ro"}, {MS_SYNCHRONOUS, "sync"}, {MS_DIRSYNC, "dirsync"}};
  for (const auto& [flag, name] : kSuperblockFlags) {
    if ((request_.flags & flag) != 0) {
      STRATA_RETURN_IF_ERROR(Set(FSCONFIG_SET_FLAG, name, nullptr, 0));
    }
  }
  for (const std::string& option : request_.data) {
    STRATA_RETURN_IF_ERROR(SetOption(option));
  }
  return Set(FSCONFIG_CMD_CREATE, nullptr, nullptr, 0);
}

Status OverlayContext::MountOn(int target) {
  context_ =
      UniqueFd(static_cast<int>(::syscall(SYS_fsopen, request_.type.c_str(), FSOPEN_CLOEXEC)));
  if (!context_.valid()) {
    // EPERM: a seccomp profile older than the call; who may not mount at all hears it again.
    return errno == EPERM || errno == ENOSYS
               ? MakeStatus(StatusCode::kUnimplemented, "fsopen: not permitted or not known here")
               : Failed(errno, request_, "fsopen");
  }
  STRATA_RETURN_IF_ERROR(Configure());
  const UniqueFd made(static_cast<int>(
      ::syscall(SYS_fsmount, context_.get(), FSMOUNT_CLOEXEC, AttributesOf(request_.flags))));
  if (!made.valid()) {
    return Explain(errno, "fsmount");
  }
  if (::syscall(SYS_move_mount, made.get(), "", target, "",
                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0) {
    return Failed(errno, request_, "attach");
  }
  return OkStatus();
}

// The deepest directory that all of `paths` (absolute) are in, "/" at the least.
std::string CommonDirectory(const std::vector<std::string>& paths) {
  const auto [low, high] = std::minmax_element(paths.begin(), paths.end());
  const auto ends = std::mismatch(low->begin(), low->end(), high->begin(), high->end());
  const size_t slash = low->rfind('/', static_cast<size_t>(ends.first - low->begin()));
  return slash == 0 || slash == std::string::npos ? "/" : low->substr(0, slash);
}

std::string RelativeTo(const std::string& directory, const std::string& path) {
  const size_t prefix = directory == "/" ? 1 : directory.size() + 1;
  return path.size() > prefix && path.starts_with(directory) && path[prefix - 1] == '/'
             ? path.substr(prefix)
             : path;
}

struct ThreadedMount {
  const Request& request;
  const std::string& target;
  const std::string& directory;
  const std::string& data;
  Status status;
};

void* RunThreadedMount(void* argument) {
  auto& mount = *static_cast<ThreadedMount*>(argument);
  if (::unshare(CLONE_FS) != 0) {
    mount.status = Failed(errno, mount.request, "unshare the working directory");
  } else if (::chdir(mount.directory.c_str()) != 0) {
    mount.status = Failed(errno, mount.request, "chdir to " + ShowName(mount.directory));
  } else if (::mount(mount.request.source.c_str(), mount.target.c_str(), mount.request.type.c_str(),
                     mount.request.flags, mount.data.c_str()) != 0) {
    mount.status =
        Failed(errno, mount.request, "with layers relative to " + ShowName(mount.directory));
  }
  return nullptr;
}

// mount(2) from the directory that all layers share. The working directory belongs to the process,
// so a thread gets one of its own.
Status MountRelative(const Request& request, int target) {
  std::vector<std::string> layers;
  for (const std::string& option : request.data) {
    if (const auto lower = ValueOf(option, "lowerdir")) {
      layers = SplitLayers(*lower);
    }
  }
  const bool absolute = std::all_of(layers.begin(), layers.end(),
                                    [](const std::string& path) { return path.starts_with('/'); });
  const std::string directory = layers.empty() || !absolute ? "/" : CommonDirectory(layers);
  std::vector<std::string> options;
  for (const std::string& option : request.data) {
    std::string shorter = option;
    if (ValueOf(option, "lowerdir") && absolute) {
      shorter = "lowerdir=";
      for (const std::string& layer : layers) {
        shorter += (shorter.back() == '=' ? "" : ":") + EscapeLayer(RelativeTo(directory, layer));
      }
    }
    options.push_back(std::move(shorter));
  }
  const std::string data = Join(options);
  if (data.size() >= kMountDataBytes) {
    return MakeStatus(StatusCode::kResourceExhausted,
                      "mount " + request.type + " on " + ShowName(request.shown_target) +
                          ": options of " + std::to_string(data.size()) + " bytes, at most " +
                          std::to_string(kMountDataBytes - 1) + " fit");
  }
  const std::string path = PathOfFd(target);
  ThreadedMount mount{request, path, directory, data, OkStatus()};
  pthread_t thread{};
  if (const int error = ::pthread_create(&thread, nullptr, RunThreadedMount, &mount); error != 0) {
    return Failed(error, request, "start a thread");
  }
  (void)::pthread_join(thread, nullptr);  // fails only for what is no thread of ours
  return mount.status;
}

Status MountLongOverlay(const Request& request, int target) {
  Status status = OverlayContext(request).MountOn(target);
  if (status.code() != StatusCode::kUnimplemented) {
    return status;
  }
  const Status fallback = MountRelative(request, target);
  return fallback.ok() ? fallback : Annotate(fallback, StatusMessage(status));
}

// --- one mount

// A program gets a path, and the one that the descriptor was opened by may have changed its
// meaning.
Status MountWithHelper(const Mount& mount, const std::string& target) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd place, OpenTarget(target, mount.target));
  char path[PATH_MAX];
  const ssize_t size = ::readlink(PathOfFd(place.get()).c_str(), path, sizeof(path));
  if (size < 0 || static_cast<size_t>(size) == sizeof(path)) {
    return ErrnoStatus(size < 0 ? errno : ENAMETOOLONG, "resolve " + ShowName(target));
  }
  return MountByHelper(mount, std::string(path, static_cast<size_t>(size)));
}

// Whether the caller has opened /dev/fuse itself and serves the mount: only the kernel is to do the
// rest, whatever the type is called.
bool HasDevice(const Mount& mount) {
  return std::any_of(mount.options.begin(), mount.options.end(),
                     [](const std::string& option) { return option.starts_with("fd="); });
}

Status MountOne(const Mount& mount, const std::string& target) {
  const std::string shown = mount.target.empty() ? target : target + "/" + mount.target;
  if (NeedsMountHelper(mount.type) && !HasDevice(mount)) {
    return MountWithHelper(mount, target);
  }
  STRATA_ASSIGN_OR_RETURN(const Request request, Parse(mount, shown));
  StatusOr<UniqueFd> place = OpenTarget(target, mount.target);
  if (!place.ok()) {
    return Annotate(place.status(), "mount " + request.type);
  }
  const std::string path = PathOfFd(place->get());
  const std::string data = Join(request.data);
  if (data.size() >= kMountDataBytes && request.type == "overlay" &&
      (request.flags & (MS_BIND | MS_REMOUNT)) == 0) {
    return MountLongOverlay(request, place->get());
  }
  if (data.size() >= kMountDataBytes) {
    return MakeStatus(StatusCode::kResourceExhausted,
                      "mount " + request.type + " on " + ShowName(shown) + ": options of " +
                          std::to_string(data.size()) + " bytes, at most " +
                          std::to_string(kMountDataBytes - 1) + " fit");
  }
  const bool is_bind = (request.flags & MS_BIND) != 0 && (request.flags & MS_REMOUNT) == 0;
  const uint64_t flags = is_bind ? request.flags & (MS_BIND | MS_REC) : request.flags;
  if (::mount(request.source.c_str(), path.c_str(), request.type.c_str(), flags, data.c_str()) !=
      0) {
    return Failed(errno, request, "from " + ShowName(request.source));
  }
  if (!is_bind || (request.flags & kPerMountFlags) == 0) {
    return OkStatus();
  }
  StatusOr<UniqueFd> bound = OpenTarget(target, mount.target);
  Status status = bound.ok() ? RestrictBind(request, bound->get()) : bound.status();
  if (!status.ok()) {
    (void)::umount2(shown.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);  // the first error is reported
  }
  return status;
}

}  // namespace

Status MountAll(std::span<const Mount> mounts, const std::string& target) {
  if (!target.starts_with('/')) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "mount target " + ShowName(target) + ": expected an absolute path");
  }
  for (size_t i = 0; i < mounts.size(); ++i) {
    Status status = MountOne(mounts[i], target);
    if (status.ok()) {
      continue;
    }
    while (i-- > 0) {
      const std::string& below = mounts[i].target;
      std::string made = target;
      if (!below.empty()) {
        made += "/";
        made += below;
      }
      (void)Unmount(made, /*lazy=*/true);  // the first error is the one to report
    }
    return status;
  }
  return OkStatus();
}

Status Unmount(const std::string& target, bool lazy) {
  if (::umount2(target.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0) {
    return OkStatus();
  }
  if (errno == EINVAL) {
    return MakeStatus(StatusCode::kNotFound, "unmount " + ShowName(target) + ": not a mount point");
  }
  return ErrnoStatus(errno, "unmount " + ShowName(target));
}

ScopedMount::~ScopedMount() {
  if (target_.empty()) {
    return;
  }
  if (const Status status = strata::Unmount(target_, /*lazy=*/true); !status.ok()) {
    LogWarn("unmount failed, ignoring", {{"error", std::string(StatusMessage(status))}});
  }
}

ScopedMount::ScopedMount(ScopedMount&& other) noexcept
    : target_(std::exchange(other.target_, {})) {}

ScopedMount& ScopedMount::operator=(ScopedMount&& other) noexcept {
  if (this != &other) {
    const ScopedMount old(std::exchange(target_, std::exchange(other.target_, {})));
  }
  return *this;
}

StatusOr<ScopedMount> ScopedMount::Mount(std::span<const strata::Mount> mounts,
                                         const std::string& target) {
  const auto on_top = std::count_if(mounts.begin(), mounts.end(), [](const strata::Mount& mount) {
    return mount.target.empty();
  });
  if (on_top != 1) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "mount on " + ShowName(target) +
                          ": expected one mount on the target itself, got " +
                          std::to_string(on_top));
  }
  STRATA_RETURN_IF_ERROR(MountAll(mounts, target));
  return ScopedMount(target);
}

Status ScopedMount::Unmount() {
  STRATA_RETURN_IF_ERROR(strata::Unmount(target_, /*lazy=*/false));
  target_.clear();
  return OkStatus();
}

}  // namespace strata
