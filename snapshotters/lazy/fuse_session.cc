// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fuse_session.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"

namespace strata {
namespace {

// Read-ahead that the kernel has under way at a time. A request that waits for the network occupies
// nobody here, so there may be many; each pins its pages.
constexpr unsigned kBackgroundRequests = 64;

// Asked for in the top directory to end a session.
constexpr std::string_view kEndName = ".end";

void LogOfLibfuse(fuse_log_level level, const char* format, va_list arguments) {
  std::array<char, 512> text{};
  (void)std::vsnprintf(text.data(), text.size(), format, arguments);  // a long line is cut
  std::string line(text.data());
  while (line.ends_with('\n')) {
    line.pop_back();
  }
  Log(level <= FUSE_LOG_ERR ? LogLevel::kWarn : LogLevel::kDebug, "libfuse",
      {{"message", std::move(line)}});
}

StatusOr<UniqueFd> OpenDevice() {
  StatusOr<UniqueFd> device = OpenFile("/dev/fuse", O_RDWR);
  if (device.ok()) {
    return device;
  }
  return MakeStatus(StatusCode::kUnimplemented, StatusMessage(device.status()));
}

Status MountDevice(int device, const std::string& mountpoint) {
  // By mount(2), not by libfuse: it would run mount(8) where /etc/mtab is a file, and its unmount
  // closes the device under the threads that read from it. allow_other: containers are other users,
  // whom default_permissions hold to the modes.
  const strata::Mount mount{
      "fuse.strata",
      "strata",
      "",
      {"ro", "fd=" + std::to_string(device), "rootmode=40000",
       "user_id=" + std::to_string(::geteuid()), "group_id=" + std::to_string(::getegid()),
       "allow_other", "default_permissions",
       "max_read=" + std::to_string(FuseSession::kMaxRequestBytes)}};
  const Status status = MountAll({&mount, 1}, mountpoint);
  const int error = StatusErrno(status).value_or(0);
  // ENODEV: no such file system; EPERM: not in this user namespace.
  return error == ENODEV || error == EPERM
             ? MakeStatus(StatusCode::kUnimplemented, StatusMessage(status))
             : status;
}

// How far the kernel reads ahead in files of the mount. Belongs to the host's root: without it, the
// kernel's 128 KiB stay.
void SetReadAhead(dev_t device, uint64_t bytes) {
  const std::string path = "/sys/class/bdi/" + std::to_string(::major(device)) + ":" +
                           std::to_string(::minor(device)) + "/read_ahead_kb";
  const StatusOr<UniqueFd> file = OpenFile(path, O_WRONLY);
  const Status status =
      file.ok() ? WriteAll(file->get(), std::to_string(bytes / 1024), path) : Status(file.status());
  if (!status.ok()) {
    LogDebug("read-ahead of a FUSE mount stays as it is, ignoring",
             {{"error", std::string(StatusMessage(status))}});
  }
}

}  // namespace

void FuseSession::Negotiate(fuse_conn_info& connection) {
  no_open_ = (connection.capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
  no_opendir_ = (connection.capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
  unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
                  FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_SPLICE_WRITE |
                  // Nothing ever changes, so nothing has to be compared before cached data is used.
                  FUSE_CAP_EXPLICIT_INVAL_DATA;
  want |= posix_acl_ ? FUSE_CAP_POSIX_ACL : 0;
  connection.want = want & connection.capable;
  connection.max_read = kMaxRequestBytes;  // what the mount option says, else libfuse refuses
  connection.max_background = kBackgroundRequests;
  connection.congestion_threshold = kBackgroundRequests;
}

Status FuseSession::Mount(const Options& options, fuse_lowlevel_ops operations) {
  operations.init = [](void* self, fuse_conn_info* connection) {
    static_cast<FuseSession*>(self)->Negotiate(*connection);
  };
  lookup_ = operations.lookup;
  operations.lookup = [](fuse_req_t request, fuse_ino_t parent, const char* name) {
    FuseSession& self = Of(request);
    if (parent == FUSE_ROOT_ID && self.ending_ && name == kEndName) {
      (void)::fuse_reply_err(request, ENOENT);
      ::fuse_session_exit(self.session_);
    } else {
      self.lookup_(request, parent, name);
    }
  };
  ::fuse_set_log_func(LogOfLibfuse);
  std::string name = "strata";
  std::string flag = "-o";
  std::string value = "max_read=" + std::to_string(kMaxRequestBytes);
  std::array<char*, 4> words = {name.data(), flag.data(), value.data(), nullptr};
  fuse_args arguments{};
  arguments.argc = words.size() - 1;
  arguments.argv = words.data();
  session_ = ::fuse_session_new(&arguments, &operations, sizeof(operations), this);
  ::fuse_opt_free_args(&arguments);
  if (session_ == nullptr) {
    return MakeStatus(StatusCode::kResourceExhausted, "start FUSE session: libfuse refused");
  }
  STRATA_ASSIGN_OR_RETURN(UniqueFd device, OpenDevice());
  STRATA_RETURN_IF_ERROR(MountDevice(device.get(), options.mountpoint));
  mount_ = ScopedMount(options.mountpoint);
  STRATA_ASSIGN_OR_RETURN(top_, OpenFile(options.mountpoint, O_PATH | O_DIRECTORY));
  // "/dev/fd/N": libfuse takes the device over and leaves the mount alone.
  if (::fuse_session_mount(session_, ("/dev/fd/" + std::to_string(device.get())).c_str()) != 0) {
    return MakeStatus(StatusCode::kResourceExhausted, "start FUSE session: device refused");
  }
  (void)device.Release();  // the session's now
  return OkStatus();
}

Status FuseSession::Serve(const Options& options) {
  loop_ = std::thread([session = session_, threads = static_cast<unsigned>(options.threads)] {
    fuse_loop_config* const config = ::fuse_loop_cfg_create();
    ::fuse_loop_cfg_set_max_threads(config, threads);
    ::fuse_loop_cfg_set_idle_threads(config, threads);
    if (const int result = ::fuse_session_loop_mt(session, config); result != 0) {
      LogWarn("FUSE session ended with an error", {{"result", std::to_string(result)}});
    }
    ::fuse_loop_cfg_destroy(config);
  });
  // Answered once the kernel and the session have agreed, or an error.
  struct stat top {};
  if (::fstat(top_.get(), &top) != 0) {
    return ErrnoStatus(errno, "start FUSE session on " + ShowName(options.mountpoint));
  }
  SetReadAhead(top.st_dev, options.read_ahead_bytes);
  return OkStatus();
}

StatusOr<std::unique_ptr<FuseSession>> FuseSession::Start(const Options& options,
                                                          fuse_lowlevel_ops operations,
                                                          void* user) {
  std::unique_ptr<FuseSession> session(new FuseSession(options.posix_acl, user));
  STRATA_RETURN_IF_ERROR(session->Mount(options, operations));
  STRATA_RETURN_IF_ERROR(session->Serve(options));
  return session;
}

// The threads sit in read(2), where no flag reaches them, and an unmount ends them only when
// nothing is bound from this mount. So one of them gets a request that ends the session, which ends
// the others. When the connection is gone the request fails at once, and they have seen that too.
void FuseSession::EndLoop() {
  ending_ = true;
  struct stat attributes {};
  (void)::fstatat(top_.get(), kEndName.data(), &attributes, AT_SYMLINK_NOFOLLOW);
}

FuseSession::~FuseSession() {
  if (loop_.joinable()) {
    EndLoop();
    top_.Reset();
    mount_ = ScopedMount();
    loop_.join();
  }
  if (session_ != nullptr) {
    ::fuse_session_destroy(session_);
  }
}

void FuseSession::ForgetName(const std::string& name) {
  // Fails when the kernel knows nothing of the name.
  (void)::fuse_lowlevel_notify_inval_entry(session_, FUSE_ROOT_ID, name.c_str(), name.size());
}

}  // namespace strata
