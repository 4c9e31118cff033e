// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fuse_session.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"

namespace strata {
namespace {

// Read-ahead that the kernel has under way at a time. A request that waits for the network occupies
// nobody here, so there may be many; each pins its pages.
constexpr unsigned kBackgroundRequests = 64;

// Room for the largest request that the kernel may think we take: max_write and its header.
constexpr size_t kBufferBytes = FuseConnection::kMaxRequestBytes + 4096;
// What requests really have, but for lists of nodes to forget.
constexpr size_t kUsualBytes = FUSE_MIN_READ_BUFFER;

// Asked for in the top directory to end a thread.
constexpr std::string_view kEndName = ".end";
thread_local bool g_ends_thread = false;

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
  no_open_ = !asks_to_open_ && (connection.capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
  no_opendir_ = (connection.capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
  unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
                  FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_SPLICE_WRITE |
                  // Nothing ever changes, so nothing has to be compared before cached data is used.
                  FUSE_CAP_EXPLICIT_INVAL_DATA;
  want |= posix_acl_ ? FUSE_CAP_POSIX_ACL : 0;
  connection.want = want & connection.capable;
  connection.max_read = FuseConnection::kMaxRequestBytes;  // as the mount option, else refused
  // The kernel has no writes for us, but takes the size of its largest read from this.
  connection.max_write = FuseConnection::kMaxRequestBytes;
  connection.max_background = kBackgroundRequests;
  connection.congestion_threshold = kBackgroundRequests;
  agreed_ = true;
}

// libfuse is shown the INIT request that the kernel sent to whoever opened the connection. A
// resumed one has its answer already, and ours is refused (ENOENT, which libfuse expects where a
// reader may be gone); when the predecessor died before it answered, ours is the answer.
Status FuseSession::Agree(const Options& options, FuseConnection connection,
                          fuse_lowlevel_ops operations) {
  operations.init = [](void* self, fuse_conn_info* about) {
    static_cast<FuseSession*>(self)->Negotiate(*about);
  };
  lookup_ = operations.lookup;
  operations.lookup = [](fuse_req_t request, fuse_ino_t parent, const char* name) {
    FuseSession& self = Of(request);
    if (parent == FUSE_ROOT_ID && self.ending_ && name == kEndName) {
      (void)::fuse_reply_err(request, ENOENT);
      g_ends_thread = true;
    } else {
      self.lookup_(request, parent, name);
    }
  };
  ::fuse_set_log_func(LogOfLibfuse);
  std::string name = "strata";
  std::string flag = "-o";
  std::string value = "max_read=" + std::to_string(FuseConnection::kMaxRequestBytes);
  std::array<char*, 4> words = {name.data(), flag.data(), value.data(), nullptr};
  fuse_args arguments{};
  arguments.argc = words.size() - 1;
  arguments.argv = words.data();
  session_ = ::fuse_session_new(&arguments, &operations, sizeof(operations), this);
  ::fuse_opt_free_args(&arguments);
  if (session_ == nullptr) {
    return MakeStatus(StatusCode::kResourceExhausted, "start FUSE session: libfuse refused");
  }
  // O_PATH: the kernel asks nobody.
  STRATA_ASSIGN_OR_RETURN(top_, OpenFile(options.mountpoint, O_PATH | O_DIRECTORY));
  // "/dev/fd/N": libfuse takes the device over and leaves the mount alone.
  if (::fuse_session_mount(session_, ("/dev/fd/" + std::to_string(connection.device())).c_str()) !=
      0) {
    return MakeStatus(StatusCode::kResourceExhausted, "start FUSE session: device refused");
  }
  (void)connection.ReleaseDevice();  // the session's now
  std::string init = connection.init();
  const fuse_buf buffer{.size = init.size(), .mem = init.data()};
  ::fuse_session_process_buf(session_, &buffer);
  if (!agreed_ || ::fuse_session_exited(session_) != 0) {
    return MakeStatus(StatusCode::kUnimplemented,
                      "start FUSE session: no agreement with the kernel");
  }
  return is_resumed_ ? ResendRequests(::fuse_session_fd(session_)) : OkStatus();
}

Status FuseSession::Serve(const Options& options) {
  working_ = options.threads;
  for (int i = 0; i < options.threads; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
  if (is_resumed_) {
    return OkStatus();
  }
  // Answered once the kernel has taken the answer to its first request, or an error.
  struct stat top {};
  if (::fstat(top_.get(), &top) != 0) {
    return ErrnoStatus(errno, "start FUSE session on " + ShowName(options.mountpoint));
  }
  SetReadAhead(top.st_dev, options.read_ahead_bytes);
  return OkStatus();
}

StatusOr<std::unique_ptr<FuseSession>> FuseSession::Start(const Options& options,
                                                          FuseConnection connection,
                                                          fuse_lowlevel_ops operations,
                                                          void* user) {
  std::unique_ptr<FuseSession> session(new FuseSession(options, connection, user));
  STRATA_RETURN_IF_ERROR(session->Agree(options, std::move(connection), operations));
  STRATA_RETURN_IF_ERROR(session->Serve(options));
  return session;
}

// Not libfuse's loop: that one cancels threads in the middle of read(2), and shows no request
// before it is answered.
void FuseSession::Work() {
  sigset_t all{};
  (void)::sigfillset(&all);
  (void)::pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals are for other threads
  const std::unique_ptr<char[]> buffer(new char[kBufferBytes]);
  // Touched: a read(2) that is killed while it waits for a page fails its request with EIO, where
  // all others of a killed process come again.
  std::memset(buffer.get(), 0, kUsualBytes);
  const int device = ::fuse_session_fd(session_);
  while (!g_ends_thread) {
    const ssize_t bytes = ::read(device, buffer.get(), kBufferBytes);
    if (bytes < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) {
      continue;  // ENOENT: the reader was interrupted before we had the request
    }
    if (bytes < 0) {
      if (errno != ENODEV) {  // the connection has ended
        LogWarn("a thread of a FUSE session ends", {{"errno", std::to_string(errno)}});
      }
      break;
    }
    const std::span<char> request(buffer.get(), static_cast<size_t>(bytes));
    if (settled_.load(std::memory_order_acquire) || !PutOff(request)) {
      const fuse_buf in{.size = request.size(), .mem = request.data()};
      ::fuse_session_process_buf(session_, &in);
    }
  }
  working_.fetch_sub(1);
}

// A request that gets no answer comes again when Settle asks for it.
bool FuseSession::PutOff(std::span<const char> request) {
  fuse_in_header header{};
  if (request.size() < sizeof(header)) {
    return false;
  }
  std::memcpy(&header, request.data(), sizeof(header));
  if (header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET ||
      header.opcode == FUSE_INTERRUPT || header.opcode == FUSE_DESTROY) {
    return false;  // these do not come again
  }
  std::string_view name;
  if (header.opcode == FUSE_LOOKUP) {
    const std::span<const char> rest = request.subspan(sizeof(header));
    name = {rest.data(), ::strnlen(rest.data(), rest.size())};
  }
  const MutexLock lock(settle_mutex_);
  if (settled_ || knows_(user_, header.nodeid, name)) {
    return false;
  }
  has_put_off_ = true;
  return true;
}

void FuseSession::Settle() {
  bool has_put_off = false;
  {
    const MutexLock lock(settle_mutex_);
    settled_.store(true, std::memory_order_release);
    has_put_off = std::exchange(has_put_off_, false);
  }
  // Those that wait for data come again too; the first answer counts, the other is refused.
  if (!has_put_off) {
    return;
  }
  if (const Status status = ResendRequests(::fuse_session_fd(session_)); !status.ok()) {
    LogWarn("requests of a FUSE mount wait for ever",
            {{"error", std::string(StatusMessage(status))}});
  }
}

// The threads sit in read(2), where no flag reaches them, and an unmount ends them only when
// nothing is bound from this mount. So each gets a request that ends it, and answers it: nothing
// stays behind in the kernel. When the connection is gone the request fails at once, and they have
// seen that too.
void FuseSession::EndThreads() {
  ending_ = true;
  for (int i = working_; i > 0; --i) {
    struct stat attributes {};
    (void)::fstatat(top_.get(), kEndName.data(), &attributes, AT_SYMLINK_NOFOLLOW);
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

FuseSession::~FuseSession() {
  EndThreads();
  top_.Reset();
  mount_ = ScopedMount();
  if (session_ != nullptr) {
    ::fuse_session_destroy(session_);
  }
}

void FuseSession::ForgetName(const std::string& name) {
  // Fails when the kernel knows nothing of the name.
  (void)::fuse_lowlevel_notify_inval_entry(session_, FUSE_ROOT_ID, name.c_str(), name.size());
}

bool FuseSession::IsInUse(fuse_ino_t node) {
  // Drops the attributes, which are asked for again. Names pin the directories that they are in.
  return ::fuse_lowlevel_notify_inval_inode(session_, node, /*off=*/-1, /*len=*/0) != -ENOENT;
}

}  // namespace strata
