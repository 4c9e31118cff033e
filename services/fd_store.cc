// SPDX-License-Identifier: Apache-2.0
#include "services/fd_store.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <string_view>

#include "services/fd_store_holder.h"
#include "snapshotters/base/log.h"

namespace strata {
namespace {

// How long whoever keeps may take to confirm, and to give something back.
constexpr std::chrono::milliseconds kKeepPatience{2000};
constexpr std::chrono::milliseconds kTakePatience{1000};
// A new second holder asks for a second whether there is one already.
constexpr std::chrono::milliseconds kStartPatience{3000};
constexpr size_t kMaxNameBytes = 32;
// Of a socket that we listen on: the name that our socket unit gives it.
constexpr char kSocketName[] = "grpc";
// What sd_listen_fds(3) calls a descriptor that came without a name.
constexpr std::string_view kNoName = "unknown";

std::chrono::steady_clock::time_point In(std::chrono::milliseconds patience) {
  return std::chrono::steady_clock::now() + patience;
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
         });
}

bool IsSocketName(const std::string& name) {
  return name == kSocketName || name.starts_with(std::string(kSocketName) + ".");
}

bool IsSocket(int fd) {
  struct stat found {};
  return ::fstat(fd, &found) == 0 && S_ISSOCK(found.st_mode);
}

UniqueFd Duplicate(int fd) {
  return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

// Whether both are one open file. Where kcmp(2) is not allowed they are taken for two, and the new
// one takes the place of the old.
bool SameFile(int a, int b) {
  const pid_t self = ::getpid();
  return ::syscall(SYS_kcmp, self, self, KCMP_FILE, a, b) == 0;
}

size_t NumberIn(const char* text) {
  const std::string_view digits = text == nullptr ? "" : text;
  size_t number = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size() ? number : 0;
}

Status RemoveFrom(const FdStoreChannel& channel, const std::string& name) {
  const auto deadline = In(kKeepPatience);
  STRATA_RETURN_IF_ERROR(channel.Remove(name, deadline));
  return channel.Barrier(deadline);
}

Status Confirm(const FdStoreChannel& channel, const std::string& name,
               std::chrono::steady_clock::time_point deadline) {
  STRATA_ASSIGN_OR_RETURN(const auto kept, channel.GetAll(deadline));
  return kept.contains(name)
             ? OkStatus()
             : MakeStatus(StatusCode::kUnavailable, "the second holder does not have it");
}

}  // namespace

class ServiceFdStore::Turn {
 public:
  explicit Turn(ServiceFdStore& store) : store_(store) {
    MutexLock lock(store_.mutex_);
    while (store_.busy_) {
      store_.turn_ended_.Wait(store_.mutex_);
    }
    store_.busy_ = true;
  }
  ~Turn() {
    MutexLock lock(store_.mutex_);
    store_.busy_ = false;
    store_.turn_ended_.Signal();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  ServiceFdStore& store_;
};

StatusOr<ServiceFdStore::Given> ServiceFdStore::FromEnvironment() {
  Given given;
  char** names = nullptr;
  const int count = ::sd_listen_fds_with_names(/*unset_environment=*/1, &names);
  if (count < 0) {
    return ErrnoStatus(-count, "take the descriptors of the service manager");
  }
  for (int i = 0; i < count; ++i) {
    given.fds.emplace_back(names[i], UniqueFd(SD_LISTEN_FDS_START + i));
    std::free(names[i]);  // all of it is ours (sd_listen_fds(3))
  }
  std::free(names);
  const char* socket = std::getenv("NOTIFY_SOCKET");
  given.notify_socket = socket == nullptr ? "" : socket;
  given.limit = NumberIn(std::getenv("FDSTORE"));
  return given;
}

ServiceFdStore::ServiceFdStore(Given&& given, std::string keeper)
    : available_(given.limit > 0 && !given.notify_socket.empty()),
      limit_(given.limit),
      keeper_(std::move(keeper)),
      manager_{.channel = FdStoreChannel(given.notify_socket), .tells = false, .has = {}} {
  for (auto& [name, fd] : given.fds) {
    if (IsSocketName(name) || name == kNoName || !IsName(name) || IsSocket(fd.get())) {
      sockets_.emplace_back(name, std::move(fd));
    } else {
      manager_.has.emplace(name, std::move(fd));
    }
  }
}

// Puts `fd` in place of what the holder has under the name. OK: it has confirmed.
Status ServiceFdStore::KeepWith(Holder& holder, const std::string& name, int fd) {
  const auto old = holder.has.find(name);
  if (old != holder.has.end() && SameFile(old->second.get(), fd)) {
    return OkStatus();
  }
  UniqueFd own = Duplicate(fd);
  if (!own.valid()) {
    return ErrnoStatus(errno, "duplicate descriptor '" + name + "'");
  }
  const auto deadline = In(kKeepPatience);
  const auto keep = [&]() -> Status {
    if (old != holder.has.end()) {
      STRATA_RETURN_IF_ERROR(holder.channel.Remove(name, deadline));
    }
    STRATA_RETURN_IF_ERROR(holder.channel.Add(name, fd, deadline));
    return holder.tells ? Confirm(holder.channel, name, deadline)
                        : holder.channel.Barrier(deadline);
  };
  const Status kept = keep();
  // Without a confirmation it may have the old one, the new one or none: the next Keep replaces it.
  holder.has.insert_or_assign(name, kept.ok() ? std::move(own) : UniqueFd());
  return Annotate(kept, "keep descriptor '" + name + "'");
}

void ServiceFdStore::DropWith(Holder& holder, const std::string& name) {
  if (holder.has.erase(name) == 0) {
    return;
  }
  if (const Status dropped = RemoveFrom(holder.channel, name); !dropped.ok()) {
    LogWarn("a descriptor may be kept for nothing, ignoring",
            {{"name", name}, {"error", std::string(StatusMessage(dropped))}});
  }
}

bool ServiceFdStore::FindSecond() {
  if (!looked_for_second_ && !root_.empty()) {
    looked_for_second_ = true;
    FdStoreChannel channel(root_, kHolderSocket);
    if (StatusOr<Descriptors> has = channel.GetAll(In(kTakePatience)); has.ok()) {
      second_ =
          std::make_unique<Holder>(Holder{std::move(channel), /*tells=*/true, *std::move(has)});
    }
  }
  return second_ != nullptr;
}

// A new one, which has nothing yet, instead of one that does not answer.
bool ServiceFdStore::StartSecond() {
  second_.reset();
  if (root_.empty()) {
    return false;
  }
  const Status started =
      StartHolder(keeper_.empty() ? FindKeeper() : keeper_, root_, In(kStartPatience));
  if (!started.ok()) {
    if (!std::exchange(warned_, true)) {
      LogWarn(
          "only the service manager keeps the descriptors of lazy layers: when this service is "
          "stopped, not restarted, while containers use layers that are incomplete, these read "
          "zeros where data are missing",
          {{"error", std::string(StatusMessage(started))}});
    }
    return false;
  }
  second_ =
      std::make_unique<Holder>(Holder{FdStoreChannel(root_, kHolderSocket), /*tells=*/true, {}});
  return true;
}

Status ServiceFdStore::KeepWithSecond(const std::string& name, int fd) {
  if (FindSecond() && KeepWith(*second_, name, fd).ok()) {
    return OkStatus();
  }
  if (!StartSecond()) {
    return MakeStatus(StatusCode::kUnavailable, "there is no second holder");
  }
  STRATA_RETURN_IF_ERROR(KeepWith(*second_, name, fd));
  // The one before may have been killed: all that it had, too.
  for (const auto& [other, kept] : manager_.has) {
    if (!IsSocketName(other) && kept.valid()) {
      STRATA_RETURN_IF_ERROR(KeepWith(*second_, other, kept.get()));
    }
  }
  return OkStatus();
}

void ServiceFdStore::TryToKeepWithSecond(const std::string& name, int fd) {
  if (const Status kept = KeepWithSecond(name, fd); !kept.ok()) {
    LogDebug("a descriptor is kept by the service manager only",
             {{"name", name}, {"error", std::string(StatusMessage(kept))}});
  }
}

UniqueFd ServiceFdStore::Take(const std::string& name) {
  const Turn turn(*this);
  if (const auto found = manager_.has.find(name); found != manager_.has.end()) {
    if (available_) {
      TryToKeepWithSecond(name, found->second.get());
    }
    return Duplicate(found->second.get());
  }
  if (!FindSecond()) {
    return {};
  }
  const auto found = second_->has.find(name);
  if (found == second_->has.end()) {
    return {};
  }
  if (available_) {
    if (const Status kept = KeepWith(manager_, name, found->second.get()); !kept.ok()) {
      LogWarn("a descriptor is kept by the second holder only, ignoring",
              {{"name", name}, {"error", std::string(StatusMessage(kept))}});
    }
  }
  return Duplicate(found->second.get());
}

// systemd closes without a word what is more than it keeps.
Status ServiceFdStore::CheckRoom(const std::string& name) const {
  if (manager_.has.size() < limit_ || manager_.has.contains(name)) {
    return OkStatus();
  }
  return MakeStatus(StatusCode::kResourceExhausted, "keep descriptor '" + name +
                                                        "': the service manager keeps at most " +
                                                        std::to_string(limit_));
}

Status ServiceFdStore::Keep(const std::string& name, int fd) {
  if (!IsName(name) || name == kSocketName || name == kNoName) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "keep descriptor '" + name + "': expected another name");
  }
  if (!available_) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "keep descriptor '" + name +
                          "': no service manager keeps any (neither NOTIFY_SOCKET nor FDSTORE)");
  }
  const Turn turn(*this);
  STRATA_RETURN_IF_ERROR(CheckRoom(name));
  STRATA_RETURN_IF_ERROR(KeepWith(manager_, name, fd));
  TryToKeepWithSecond(name, fd);
  return OkStatus();
}

void ServiceFdStore::Drop(const std::string& name) {
  const Turn turn(*this);
  DropWith(manager_, name);
  if (!FindSecond()) {
    return;
  }
  DropWith(*second_, name);
  if (second_->has.empty()) {
    (void)second_->channel.End(In(kTakePatience));  // one that stays has nothing and is found again
    second_.reset();
  }
}

void ServiceFdStore::Mend() {
  const Turn turn(*this);
  const auto kept = std::find_if(manager_.has.begin(), manager_.has.end(), [](const auto& entry) {
    return !IsSocketName(entry.first) && entry.second.valid();
  });
  if (!available_ || kept == manager_.has.end() ||
      (second_ != nullptr && second_->channel.Barrier(In(kTakePatience)).ok())) {
    return;
  }
  const bool killed = second_ != nullptr;
  second_.reset();  // KeepWithSecond then gives a new one all that there is
  TryToKeepWithSecond(kept->first, kept->second.get());
  if (killed && second_ != nullptr) {
    LogWarn("the second holder of descriptors was gone, and has been started again");
  }
}

std::string ServiceFdStore::SocketName(const std::string& tenant) {
  return tenant.empty() ? kSocketName : kSocketName + ("." + tenant);
}

Status ServiceFdStore::KeepSocket(const std::string& name, int fd) {
  if (!available_) {
    return MakeStatus(StatusCode::kFailedPrecondition, "no service manager keeps descriptors");
  }
  const Turn turn(*this);
  STRATA_RETURN_IF_ERROR(CheckRoom(name));
  return KeepWith(manager_, name, fd);
}

void ServiceFdStore::DropSocket(const std::string& name) {
  if (!available_) {
    return;
  }
  const Turn turn(*this);
  manager_.has.erase(name);
  // With the answer it is closed there. Without one, binding its path anew says what is wrong.
  (void)RemoveFrom(manager_.channel, name);
}

}  // namespace strata
