// SPDX-License-Identifier: Apache-2.0
#include "tests/power_cut/forgetful_disk.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <new>
#include <random>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

#include "snapshotters/base/file_at.h"

namespace strata::testing {
namespace {

constexpr size_t kBlockBytes = 512;  // what is counted
constexpr fuse_ino_t kDiskInode = 2;
constexpr std::string_view kDiskName = "disk";
constexpr double kAttributeSeconds = 3600;  // they never change

bool ReadAt(int fd, uint64_t offset, std::span<char> bytes) {
  return ::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
         static_cast<ssize_t>(bytes.size());
}

bool WriteAt(int fd, uint64_t offset, std::span<const char> bytes) {
  return ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
         static_cast<ssize_t>(bytes.size());
}

uint64_t BlocksOf(size_t bytes) {
  return (bytes + kBlockBytes - 1) / kBlockBytes;
}

// A write that no flush has followed.
struct VolatileWrite {
  uint64_t offset = 0;
  std::vector<char> before;
  std::vector<char> after;
};

}  // namespace

struct ForgetfulDisk::Shared {
  std::atomic<bool> off{true};
  std::atomic<uint64_t> writes{0};
  std::atomic<uint64_t> flushes{0};
};

struct ForgetfulDisk::Request {
  enum class Kind { kPowerOn, kGoOffAfter, kCut };
  Kind kind = Kind::kPowerOn;
  uint64_t number = 0;  // writes, or the seed
};

struct ForgetfulDisk::Answer {
  bool ok = false;
  CutReport report;
};

// What runs in the child: one thread serves FUSE, one the switch.
class ForgetfulDisk::Server {
 public:
  Server(UniqueFd image, uint64_t size, bool lie, Shared* shared)
      : image_(std::move(image)), size_(size), lie_(lie), shared_(shared) {}

  // Serves until the process is killed. Says so on `control` once it is mounted.
  void Run(const std::string& mount_point, int control);

 private:
  static Server& Of(fuse_req_t req) { return *static_cast<Server*>(::fuse_req_userdata(req)); }
  static void OnLookup(fuse_req_t req, fuse_ino_t parent, const char* name);
  static void OnGetAttr(fuse_req_t req, fuse_ino_t inode, fuse_file_info* file);
  static void OnOpen(fuse_req_t req, fuse_ino_t inode, fuse_file_info* file);
  static void OnRead(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                     fuse_file_info* file);
  static void OnWrite(fuse_req_t req, fuse_ino_t inode, const char* bytes, size_t size,
                      off_t offset, fuse_file_info* file);
  static void OnFsync(fuse_req_t req, fuse_ino_t inode, int datasync, fuse_file_info* file);

  void Switch(int control);
  Answer Do(const Request& request);
  // Under mutex_. Also refuses what still holds the disk from before the last cut.
  bool Refuses(const fuse_file_info* file) const {
    return shared_->off.load() || file->fh != generation_;
  }
  bool Write(uint64_t offset, std::span<const char> bytes);
  Answer Cut(uint64_t seed);
  bool Keep(const VolatileWrite& write, size_t chunk, unsigned percent, std::mt19937_64& random,
            CutReport* report);
  [[nodiscard]] struct stat Attributes(fuse_ino_t inode) const;

  const UniqueFd image_;  // with the volatile writes in it
  const uint64_t size_;
  const bool lie_;
  Shared* const shared_;
  std::mutex mutex_;  // guards all below
  uint64_t generation_ = 0;
  uint64_t writes_left_ = 0;             // until the power goes; 0 when it does not by itself
  std::vector<VolatileWrite> volatile_;  // as they arrived
};

struct stat ForgetfulDisk::Server::Attributes(fuse_ino_t inode) const {
  struct stat attributes {};
  attributes.st_ino = inode;
  attributes.st_mode = inode == kDiskInode ? S_IFREG | 0600 : S_IFDIR | 0700;
  attributes.st_nlink = 1;
  attributes.st_size = inode == kDiskInode ? static_cast<off_t>(size_) : 0;
  return attributes;
}

void ForgetfulDisk::Server::OnLookup(fuse_req_t req, fuse_ino_t /*parent*/, const char* name) {
  if (name != kDiskName) {
    (void)::fuse_reply_err(req, ENOENT);  // here and below: a caller that has gone needs no reply
    return;
  }
  fuse_entry_param entry{};
  entry.ino = kDiskInode;
  entry.attr = Of(req).Attributes(kDiskInode);
  entry.attr_timeout = kAttributeSeconds;
  entry.entry_timeout = kAttributeSeconds;
  (void)::fuse_reply_entry(req, &entry);
}

void ForgetfulDisk::Server::OnGetAttr(fuse_req_t req, fuse_ino_t inode, fuse_file_info* /*file*/) {
  const struct stat attributes = Of(req).Attributes(inode);
  (void)::fuse_reply_attr(req, &attributes, kAttributeSeconds);
}

void ForgetfulDisk::Server::OnOpen(fuse_req_t req, fuse_ino_t /*inode*/, fuse_file_info* file) {
  Server& self = Of(req);
  const std::lock_guard lock(self.mutex_);
  // No page cache in front: a write has arrived here before it is complete.
  file->direct_io = 1;
  file->fh = self.generation_;
  (void)::fuse_reply_open(req, file);
}

void ForgetfulDisk::Server::OnRead(fuse_req_t req, fuse_ino_t /*inode*/, size_t size, off_t offset,
                                   fuse_file_info* file) {
  Server& self = Of(req);
  const std::lock_guard lock(self.mutex_);
  const auto start = std::min(static_cast<uint64_t>(offset), self.size_);
  std::vector<char> bytes(std::min<uint64_t>(size, self.size_ - start));
  if (self.Refuses(file) || !ReadAt(self.image_.get(), start, bytes)) {
    (void)::fuse_reply_err(req, EIO);
    return;
  }
  (void)::fuse_reply_buf(req, bytes.data(), bytes.size());
}

bool ForgetfulDisk::Server::Write(uint64_t offset, std::span<const char> bytes) {
  if (offset > size_ || bytes.size() > size_ - offset) {
    return false;
  }
  VolatileWrite write{.offset = offset,
                      .before = std::vector<char>(bytes.size()),
                      .after = {bytes.begin(), bytes.end()}};
  if (!ReadAt(image_.get(), offset, write.before) || !WriteAt(image_.get(), offset, bytes)) {
    return false;
  }
  volatile_.push_back(std::move(write));
  ++shared_->writes;
  if (writes_left_ > 0 && --writes_left_ == 0) {
    shared_->off = true;
  }
  return true;
}

void ForgetfulDisk::Server::OnWrite(fuse_req_t req, fuse_ino_t /*inode*/, const char* bytes,
                                    size_t size, off_t offset, fuse_file_info* file) {
  Server& self = Of(req);
  const std::lock_guard lock(self.mutex_);
  if (self.Refuses(file) || !self.Write(static_cast<uint64_t>(offset), {bytes, size})) {
    (void)::fuse_reply_err(req, EIO);
    return;
  }
  (void)::fuse_reply_write(req, size);
}

// Covers what has arrived. A real disk may leave out writes that arrive while it flushes; nobody
// can tell, since those writers have not waited for their writes.
void ForgetfulDisk::Server::OnFsync(fuse_req_t req, fuse_ino_t /*inode*/, int /*datasync*/,
                                    fuse_file_info* file) {
  Server& self = Of(req);
  const std::lock_guard lock(self.mutex_);
  if (self.Refuses(file)) {
    (void)::fuse_reply_err(req, EIO);
    return;
  }
  if (!self.lie_) {
    self.volatile_.clear();
  }
  ++self.shared_->flushes;
  (void)::fuse_reply_err(req, 0);
}

// By aligned chunks, each with that chance.
bool ForgetfulDisk::Server::Keep(const VolatileWrite& write, size_t chunk, unsigned percent,
                                 std::mt19937_64& random, CutReport* report) {
  const std::span<const char> bytes(write.after);
  for (size_t done = 0; done < bytes.size();) {
    const size_t size = std::min(chunk - (write.offset + done) % chunk, bytes.size() - done);
    if (random() % 100 >= percent) {
      report->dropped_blocks += BlocksOf(size);
    } else if (!WriteAt(image_.get(), write.offset + done, bytes.subspan(done, size))) {
      return false;
    }
    done += size;
  }
  return true;
}

ForgetfulDisk::Answer ForgetfulDisk::Server::Cut(uint64_t seed) {
  constexpr std::array<unsigned, 5> kPercents = {0, 25, 50, 75, 100};
  constexpr size_t kPageBytes = 4096;
  std::mt19937_64 random(seed);
  const unsigned percent = lie_ ? 100 : kPercents[random() % kPercents.size()];
  const size_t chunk = random() % 3 == 0 ? SIZE_MAX : kPageBytes;
  // A lying disk forgets up to half of what it was given, the last of it.
  const size_t tail = lie_ ? random() % (volatile_.size() / 2 + 1) : 0;
  Answer answer{.ok = true};
  for (size_t i = volatile_.size(); i-- > 0;) {
    answer.ok = answer.ok && WriteAt(image_.get(), volatile_[i].offset, volatile_[i].before);
  }
  for (size_t i = 0; i < volatile_.size(); ++i) {
    const VolatileWrite& write = volatile_[i];
    answer.report.volatile_blocks += BlocksOf(write.after.size());
    const bool forgotten = i >= volatile_.size() - tail;
    answer.ok = answer.ok && Keep(write, chunk, forgotten ? 0 : percent, random, &answer.report);
  }
  volatile_.clear();
  return answer;
}

ForgetfulDisk::Answer ForgetfulDisk::Server::Do(const Request& request) {
  const std::lock_guard lock(mutex_);
  switch (request.kind) {
    case Request::Kind::kPowerOn:
      ++generation_;
      volatile_.clear();
      shared_->off = false;
      break;
    case Request::Kind::kGoOffAfter:
      writes_left_ = request.number;
      break;
    case Request::Kind::kCut:
      writes_left_ = 0;
      return Cut(request.number);
  }
  return {.ok = true};
}

void ForgetfulDisk::Server::Switch(int control) {
  Request request;
  while (::recv(control, &request, sizeof(request), 0) == static_cast<ssize_t>(sizeof(request))) {
    const Answer answer = Do(request);
    if (::send(control, &answer, sizeof(answer), MSG_NOSIGNAL) < 0) {
      break;
    }
  }
}

void ForgetfulDisk::Server::Run(const std::string& mount_point, int control) {
  fuse_lowlevel_ops operations{};
  operations.lookup = OnLookup;
  operations.getattr = OnGetAttr;
  operations.open = OnOpen;
  operations.read = OnRead;
  operations.write = OnWrite;
  operations.fsync = OnFsync;
  std::string name = "forgetful-disk";
  std::array<char*, 2> words = {name.data(), nullptr};
  fuse_args arguments = FUSE_ARGS_INIT(1, words.data());
  fuse_session* session =
      ::fuse_session_new(&arguments, &operations, sizeof(operations), /*userdata=*/this);
  const Answer mounted{.ok = session != nullptr &&
                             ::fuse_session_mount(session, mount_point.c_str()) == 0};
  if (::send(control, &mounted, sizeof(mounted), MSG_NOSIGNAL) < 0 || !mounted.ok) {
    return;
  }
  std::thread([this, control] { Switch(control); }).detach();
  (void)::fuse_session_loop(session);  // ends with the mount; this process has nothing else to do
}

ForgetfulDisk::ForgetfulDisk(std::string mount_point, Shared* shared)
    : mount_point_(std::move(mount_point)),
      path_(mount_point_ + "/" + std::string(kDiskName)),
      shared_(shared) {}

StatusOr<std::unique_ptr<ForgetfulDisk>> ForgetfulDisk::Create(
    const ForgetfulDiskOptions& options) {
  STRATA_ASSIGN_OR_RETURN(UniqueFd image, OpenFile(options.image, O_RDWR));
  struct stat found {};
  int sockets[2];
  if (::fstat(image.get(), &found) != 0 ||
      ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
    return ErrnoStatus(errno, "prepare a disk");
  }
  UniqueFd ours(sockets[0]);
  const UniqueFd theirs(sockets[1]);
  void* memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return ErrnoStatus(errno, "share memory with a disk");
  }
  std::unique_ptr<ForgetfulDisk> disk(new ForgetfulDisk(options.mount_point, new (memory) Shared));
  const pid_t parent = ::getpid();
  disk->child_ = ::fork();
  if (disk->child_ < 0) {
    return ErrnoStatus(errno, "fork");
  }
  if (disk->child_ == 0) {
    ours.Reset();
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ::getppid() == parent) {
      Server server(std::move(image), static_cast<uint64_t>(found.st_size), options.lie,
                    disk->shared_);
      server.Run(options.mount_point, theirs.get());
    }
    ::_exit(1);
  }
  disk->control_ = std::move(ours);
  Answer mounted;
  if (::recv(disk->control_.get(), &mounted, sizeof(mounted), 0) !=
          static_cast<ssize_t>(sizeof(mounted)) ||
      !mounted.ok) {
    return MakeStatus(StatusCode::kNotFound, "no FUSE here");
  }
  return disk;
}

ForgetfulDisk::~ForgetfulDisk() {
  if (child_ > 0) {
    (void)::kill(child_, SIGKILL);  // ours and not reaped; what still waits for the disk fails then
    while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
    }
    (void)::umount2(mount_point_.c_str(), MNT_DETACH);  // may not have been mounted
  }
  (void)::munmap(shared_, sizeof(Shared));
}

StatusOr<CutReport> ForgetfulDisk::Ask(const Request& request) {
  Answer answer;
  if (::send(control_.get(), &request, sizeof(request), MSG_NOSIGNAL) < 0 ||
      ::recv(control_.get(), &answer, sizeof(answer), 0) != static_cast<ssize_t>(sizeof(answer))) {
    return ErrnoStatus(errno, "reach the process of the disk");
  }
  if (!answer.ok) {
    return MakeStatus(StatusCode::kDataLoss, "the disk cannot write its image");
  }
  return answer.report;
}

Status ForgetfulDisk::PowerOn() {
  return Ask({.kind = Request::Kind::kPowerOn}).status();
}

Status ForgetfulDisk::GoOffAfter(uint64_t writes) {
  return Ask({.kind = Request::Kind::kGoOffAfter, .number = writes}).status();
}

StatusOr<CutReport> ForgetfulDisk::Cut(uint64_t seed) {
  shared_->off = true;
  return Ask({.kind = Request::Kind::kCut, .number = seed});
}

bool ForgetfulDisk::off() const {
  return shared_->off.load();
}

uint64_t ForgetfulDisk::writes() const {
  return shared_->writes.load();
}

uint64_t ForgetfulDisk::flushes() const {
  return shared_->flushes.load();
}

}  // namespace strata::testing
