// SPDX-License-Identifier: Apache-2.0
#include "client/network/cni_network.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <ctime>
#include <optional>
#include <thread>
#include <utility>

#include "client/file_lock.h"
#include "client/network/cni_namespaces.h"
#include "client/network/made_bridge.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::chrono::seconds kReleaseLimit{30};  // of the plugins of one namespace
constexpr std::chrono::seconds kFillLimit{60};
constexpr std::chrono::seconds kLookInterval{60};  // for spare ones
constexpr milliseconds kLockPoll{5};
constexpr mode_t kLockFileMode = 0600;
constexpr size_t kMaxHostnameBytes = 253;
constexpr const char* kFillLockFile = "fill.lock";

// CNI_ARGS is a list with ';' and '='.
bool IsHostname(std::string_view name) {
  return name.size() <= kMaxHostnameBytes && std::ranges::all_of(name, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '.' || c == '-';
         });
}

void LogIgnored(std::string_view what, const Status& status) {
  if (!status.ok()) {
    LogWarn(std::string(what) + " failed, ignoring",
            {{"error", std::string(StatusMessage(status))}});
  }
}

// flock(2), as BuildKit takes it, so that the two exclude one another.
StatusOr<UniqueFd> LockInit(const std::string& path, const CniLimits& limits) {
  STRATA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT, kLockFileMode));
  while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return ErrnoStatus(errno, "lock " + ShowName(path));
    }
    if (steady_clock::now() > limits.deadline || (limits.stop != nullptr && limits.stop->load())) {
      return MakeStatus(StatusCode::kDeadlineExceeded,
                        "lock " + ShowName(path) + ": somebody else has it");
    }
    const timespec pause{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(kLockPoll).count()};
    (void)::nanosleep(&pause, nullptr);  // a signal only means to look earlier
  }
  return fd;
}

class CniNetwork final : public NetworkProvider {
 public:
  explicit CniNetwork(CniNetworkOptions options) : options_(std::move(options)) {}
  ~CniNetwork() override;
  CniNetwork(const CniNetwork&) = delete;
  CniNetwork& operator=(const CniNetwork&) = delete;

  StatusOr<std::unique_ptr<ContainerNetwork>> Take(std::string_view hostname,
                                                   milliseconds timeout) override;
  [[nodiscard]] const std::string& name() const override { return name_; }

 private:
  class Taken;

  // Opened by the first who needs them; nullptr before. They stay as long as this.
  CniNamespaces* opened();
  StatusOr<CniNamespaces*> Namespaces();
  StatusOr<CniNamespace> Create(CniNamespaces& namespaces, const std::string& args,
                                const CniLimits& limits);
  void GiveBack(CniNamespace given, bool to_pool);

  // The thread behind the takes.
  void StartAttendant();
  void Attend(CniNamespaces& namespaces);
  void Fill(CniNamespaces& namespaces);
  CniLimits LimitsOf(std::chrono::seconds limit) {
    return {.deadline = steady_clock::now() + limit, .stop = &stop_};
  }

  const std::string name_ = "cni";
  const CniNetworkOptions options_;
  std::atomic<bool> initialized_ = false;  // a set-up has been done by this process
  std::atomic<bool> stop_ = false;

  Mutex mutex_;
  CondVar changed_;
  std::unique_ptr<CniNamespaces> namespaces_ ABSL_GUARDED_BY(mutex_);
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;  // a look at the pool
  std::optional<std::thread> attendant_ ABSL_GUARDED_BY(mutex_);
};

class CniNetwork::Taken final : public ContainerNetwork {
 public:
  Taken(CniNetwork& network, CniNamespace taken, bool to_pool)
      : network_(network), path_(taken.path()), taken_(std::move(taken)), to_pool_(to_pool) {}
  ~Taken() override { network_.GiveBack(std::move(taken_), to_pool_); }
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;

  [[nodiscard]] Kind kind() const override { return Kind::kPath; }
  [[nodiscard]] const std::string& path() const override { return path_; }
  void Spoil() override { to_pool_ = false; }

 private:
  CniNetwork& network_;
  const std::string path_;
  CniNamespace taken_;
  bool to_pool_;
};

CniNamespaces* CniNetwork::opened() {
  const MutexLock lock(mutex_);
  return namespaces_.get();
}

StatusOr<CniNamespaces*> CniNetwork::Namespaces() {
  if (CniNamespaces* present = opened(); present != nullptr) {
    return present;
  }
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<CniNamespaces> made,
                          CniNamespaces::Open({.directory = options_.directory,
                                               .plugin_path = options_.plugin_path,
                                               .outer_netns = options_.outer_netns}));
  const MutexLock lock(mutex_);
  if (namespaces_ == nullptr) {
    namespaces_ = std::move(made);
  }
  return namespaces_.get();
}

StatusOr<CniNamespace> CniNetwork::Create(CniNamespaces& namespaces, const std::string& args,
                                          const CniLimits& limits) {
  UniqueFd init_lock;
  if (!initialized_.load() && !options_.init_lock_path.empty()) {
    STRATA_ASSIGN_OR_RETURN(init_lock, LockInit(options_.init_lock_path, limits));
  }
  std::optional<FileLock> bridge_lock;
  if (!options_.bridge.empty()) {
    MadeBridge bridge(namespaces, options_.outer_netns);
    STRATA_ASSIGN_OR_RETURN(bridge_lock, bridge.BeforeSetup(options_.bridge, limits));
  }
  StatusOr<CniNamespace> made = namespaces.Create(options_.config, args, limits);
  if (made.ok()) {
    initialized_.store(true);
  }
  return made;
}

StatusOr<std::unique_ptr<ContainerNetwork>> CniNetwork::Take(std::string_view hostname,
                                                             milliseconds timeout) {
  if (!IsHostname(hostname)) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "hostname " + ShowName(hostname) + ": expected at most " +
                          std::to_string(kMaxHostnameBytes) + " letters, digits, '_', '.' and '-'");
  }
  const CniLimits limits{.deadline = steady_clock::now() + timeout};
  STRATA_ASSIGN_OR_RETURN(CniNamespaces * namespaces, Namespaces());
  const bool pooled = hostname.empty() && options_.pool_size > 0;
  std::optional<CniNamespace> taken;
  if (pooled) {
    STRATA_ASSIGN_OR_RETURN(taken, namespaces->TakeWaiting(options_.config.digest));
  }
  if (!taken.has_value()) {
    const std::string args =
        hostname.empty() ? "" : "IgnoreUnknown=1;K8S_POD_NAME=" + std::string(hostname);
    STRATA_ASSIGN_OR_RETURN(taken, Create(*namespaces, args, limits));
  }
  StartAttendant();
  return std::make_unique<Taken>(*this, *std::move(taken), pooled);
}

void CniNetwork::GiveBack(CniNamespace given, bool to_pool) {
  CniNamespaces* namespaces = opened();  // it came from there
  if (!to_pool) {
    namespaces->Release(std::move(given), {.deadline = steady_clock::now() + kReleaseLimit});
    return;
  }
  LogIgnored("return of a network namespace to the pool", namespaces->PutBack(std::move(given)));
}

void CniNetwork::StartAttendant() {
  const MutexLock lock(mutex_);
  wanted_ = true;
  changed_.Signal();
  if (!attendant_.has_value()) {
    attendant_.emplace([this, &namespaces = *namespaces_] { Attend(namespaces); });
  }
}

void CniNetwork::Attend(CniNamespaces& namespaces) {
  LogIgnored("release of network namespaces that were left",
             namespaces.ReleaseLeftovers(LimitsOf(kReleaseLimit)).status());
  while (!stop_.load()) {
    LogIgnored(
        "release of spare network namespaces",
        namespaces.ReleaseIdle(options_.config.digest, options_.pool_size, LimitsOf(kReleaseLimit))
            .status());
    Fill(namespaces);
    const auto next_look = steady_clock::now() + kLookInterval;
    const MutexLock lock(mutex_);
    while (!wanted_ && !stop_.load() && !changed_.WaitUntil(mutex_, next_look)) {
    }
    wanted_ = false;
  }
}

void CniNetwork::Fill(CniNamespaces& namespaces) {
  // One process fills; the others would only overshoot.
  StatusOr<std::optional<FileLock>> lock =
      FileLock::Try(namespaces.fd(), kFillLockFile, FileLock::Mode::kExclusive);
  if (!lock.ok() || !lock->has_value()) {
    LogIgnored("lock of the pool of network namespaces", lock.status());
    return;
  }
  while (!stop_.load()) {
    const StatusOr<size_t> count = namespaces.Count(options_.config.digest);
    if (!count.ok() || *count >= options_.pool_size) {
      break;
    }
    StatusOr<CniNamespace> made = Create(namespaces, "", LimitsOf(kFillLimit));
    const Status status = made.ok() ? namespaces.PutBack(*std::move(made)) : Status(made.status());
    if (!status.ok()) {
      LogIgnored("filling of the pool of network namespaces", status);
      break;
    }
  }
  (*lock)->Remove(namespaces.fd(), kFillLockFile);
}

CniNetwork::~CniNetwork() {
  std::optional<std::thread> attendant;
  {
    const MutexLock lock(mutex_);
    stop_.store(true);
    changed_.SignalAll();
    attendant.swap(attendant_);
  }
  if (attendant.has_value()) {
    attendant->join();
  }
  CniNamespaces* namespaces = opened();
  if (namespaces == nullptr) {
    return;
  }
  if (!options_.keep_pool) {
    LogIgnored(
        "release of waiting network namespaces",
        namespaces->ReleaseWaiting({.deadline = steady_clock::now() + kReleaseLimit}).status());
  }
  if (!options_.bridge.empty()) {
    LogIgnored("removal of the bridge",
               MadeBridge(*namespaces, options_.outer_netns).RemoveIfUnused());
  }
}

}  // namespace

std::unique_ptr<NetworkProvider> NewCniNetwork(CniNetworkOptions options) {
  return std::make_unique<CniNetwork>(std::move(options));
}

StatusOr<size_t> ReleaseUnusedCniNetworks(const std::string& directory,
                                          const std::string& outer_netns) {
  struct stat found {};
  if (::stat(directory.c_str(), &found) != 0 && errno == ENOENT) {
    return size_t{0};
  }
  STRATA_ASSIGN_OR_RETURN(
      const std::unique_ptr<CniNamespaces> namespaces,
      CniNamespaces::Open({.directory = directory, .plugin_path = "", .outer_netns = outer_netns}));
  const CniLimits limits{.deadline = steady_clock::now() + kReleaseLimit};
  STRATA_ASSIGN_OR_RETURN(const size_t waiting, namespaces->ReleaseWaiting(limits));
  STRATA_ASSIGN_OR_RETURN(const size_t left, namespaces->ReleaseLeftovers(limits));
  STRATA_RETURN_IF_ERROR(MadeBridge(*namespaces, outer_netns).RemoveIfUnused());
  return waiting + left;
}

}  // namespace strata
