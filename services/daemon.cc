// SPDX-License-Identifier: Apache-2.0
#include "services/daemon.h"

#include <absl/synchronization/mutex.h>
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <utility>

#include "services/fd_store.h"
#include "services/root_control.h"
#include "services/rpc/listener.h"
#include "services/tenant_servers.h"
#include "services/tenant_sockets.h"
#include "services/version.h"
#include "services/worker_pool.h"
#include "snapshotters/base/fault.h"

namespace strata {
namespace {

constexpr std::chrono::milliseconds kDrainPatience{10'000};
// Usage walks at a time: they are bound by the disk, and more would only make it seek.
constexpr size_t kWalkThreads = 4;
// Layers that are waited for at a time; clients prepare an image one layer after the other.
constexpr size_t kRemoteThreads = 64;
// How often memory that a burst of calls left is given back.
constexpr std::chrono::milliseconds kHousekeepingInterval{1000};
// Until a second holder of descriptors that was killed is noticed.
constexpr std::chrono::milliseconds kMendInterval{5000};

// A thread's own heap would keep what its burst of calls once needed; two are enough for two cores'
// worth of contention in gRPC, and memory is one of the things we are measured by.
void TuneMemory() {
  (void)::mallopt(M_ARENA_MAX, 2);  // fails only for an unknown parameter
  // malloc_trim, which the housekeeping calls, gives nothing back of the end of a second arena.
  (void)::mallopt(M_TRIM_THRESHOLD, 512 << 10);
}

// A snapshotter may hold a descriptor per connection and per walk; the default soft limit is 1,024.
void RaiseFileLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);  // the lower limit then stays
  }
}

sigset_t StopSignals() {
  sigset_t signals;
  (void)::sigemptyset(&signals);
  (void)::sigaddset(&signals, SIGTERM);
  (void)::sigaddset(&signals, SIGINT);
  return signals;
}

// Interval at which the service manager wants to hear from us; 0 when it does not.
std::chrono::milliseconds WatchdogInterval() {
  uint64_t microseconds = 0;
  if (::sd_watchdog_enabled(/*unset_environment=*/0, &microseconds) <= 0) {
    return {};
  }
  return std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::microseconds(microseconds) / 2);
}

void Notify(const char* state) {
  // Nobody to tell is no failure, and a failure changes nothing for us: the manager will time out.
  (void)::sd_notify(/*unset_environment=*/0, state);
}

// Waits for a stop signal at most `timeout`; its number, or 0.
int WaitForSignal(std::chrono::milliseconds timeout) {
  const sigset_t signals = StopSignals();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  const timespec limit = {
      .tv_sec = seconds.count(),
      .tv_nsec = std::chrono::nanoseconds(timeout - seconds).count(),
  };
  const int number = ::sigtimedwait(&signals, nullptr, &limit);
  return number > 0 ? number : 0;
}

// Until a stop signal: tells the watchdog that calls are still being worked on, keeps memory low,
// and looks after the second holder of descriptors.
Status ServeUntilStopped(Snapshotter& snapshotter, WorkerPool& mutations, ServiceFdStore& fds) {
  const std::chrono::milliseconds watchdog = WatchdogInterval();
  const std::chrono::milliseconds interval =
      watchdog.count() > 0 ? std::min(watchdog, kHousekeepingInterval) : kHousekeepingInterval;
  auto last_trim = std::chrono::steady_clock::now();
  auto last_mend = last_trim;
  while (true) {
    if (const int number = WaitForSignal(interval); number != 0) {
      LogInfo("stopping", {{"signal", number == SIGTERM ? "SIGTERM" : "SIGINT"}});
      return OkStatus();
    }
    // A store that a failed disk write has closed opens again only in a new process.
    CallContext call;
    Status store = snapshotter.Stat(call, "strata/health").status();
    if (store.code() == StatusCode::kUnavailable) {
      return store;
    }
    if (watchdog.count() > 0) {
      // From a thread of the pool: when all of them hang, the manager hears nothing and restarts
      // us.
      (void)mutations.Submit([] { Notify("WATCHDOG=1"); });
    }
    if (const auto now = std::chrono::steady_clock::now();
        now - last_trim >= kHousekeepingInterval) {
      (void)::malloc_trim(0);  // whether it found something does not matter
      last_trim = now;
      if (now - last_mend >= kMendInterval) {
        last_mend = now;
        fds.Mend();
      }
    }
  }
}

// What can be said of all paths before anything is touched.
Status CheckPaths(const DaemonKind& kind, const DaemonConfig& config) {
  STRATA_RETURN_IF_ERROR(kind.check_root(config.root));
  STRATA_RETURN_IF_ERROR(Listener::CheckPath(config.socket));
  for (const TenantConfig& tenant : config.tenants) {
    if (!tenant.socket.empty()) {
      STRATA_RETURN_IF_ERROR(
          Annotate(Listener::CheckPath(tenant.socket), "tenant '" + tenant.name + "'"));
    }
  }
  return OkStatus();
}

// Whether a daemon of this program could take over from the one that serves the root.
Status Check(const DaemonKind& kind, const DaemonConfig& config) {
  STRATA_RETURN_IF_ERROR(kind.check(config));
  return CheckFormats(config.root, kind.formats);
}

// The exit code; an error when it did not come to serving.
StatusOr<int> Serve(const DaemonKind& kind, const DaemonConfig& config, ServiceFdStore& fds) {
  const auto started = std::chrono::steady_clock::now();
  STRATA_RETURN_IF_ERROR(FaultPoints::ArmFromEnvironment());
  fds.Attach(config.root);
  STRATA_ASSIGN_OR_RETURN(TenantSockets sockets, TenantSockets::Assign(config, fds.TakeSockets()));
  // Before anything is begun in the root.
  STRATA_RETURN_IF_ERROR(sockets.CheckFree());
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<TreeSnapshotter> snapshotter,
                          kind.open(config, fds));
  if (const Status published = PublishFormats(config.root, kind.formats); !published.ok()) {
    LogWarn("another version cannot tell before an upgrade whether it reads this root, ignoring",
            {{"error", std::string(StatusMessage(published))}});
  }
  STRATA_ASSIGN_OR_RETURN(std::vector<TenantSockets::Entrance> entrances, sockets.Open(fds));
  const std::string where = entrances.front().listeners.front().path();
  WorkerPool mutations({});
  WorkerPool walks({.threads = kWalkThreads});
  WorkerPool remote({.threads = kRemoteThreads});
  RootControl control(kind.name, config.root, *snapshotter,
                      kind.control ? &kind.control() : nullptr);
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<TenantServers> servers,
                          TenantServers::Start({.snapshotter = *snapshotter,
                                                .mutations = mutations,
                                                .walks = walks,
                                                .remote = kind.remote ? &remote : nullptr,
                                                .slow_removal = config.synchronous_removal},
                                               &control, std::move(entrances)));
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - started);
  LogInfo("serving", {{"kind", kind.name},
                      {"version", std::string(kVersion)},
                      {"root", config.root},
                      {"socket", where},
                      {"tenants", std::to_string(config.tenants.size() + 1)},
                      {"start_ms", std::to_string(took.count())}});
  Notify("READY=1");
  const Status served = ServeUntilStopped(*snapshotter, mutations, fds);
  Notify("STOPPING=1");
  servers->Stop(kDrainPatience);
  if (!served.ok()) {
    LogError("ended by a failure", {{"error", std::string(StatusMessage(served))}});
    return kExitFailure;
  }
  LogInfo("stopped");
  return kExitOk;
}

}  // namespace

int DaemonMain(const DaemonKind& kind, int argc, char** argv) {
  // Debian builds abseil without NDEBUG, which turns on a search for lock cycles at every lock of
  // gRPC.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  TuneMemory();
  const ConfigSources sources = {
      .kind = kind.name,
      .version = std::string(kVersion),
      .read_file = ReadConfigFile,
      .settings = kind.settings,
  };
  const auto config = ReadConfig(sources, std::vector<std::string>(argv + 1, argv + argc));
  if (!config.ok()) {
    LogError("cannot start", {{"error", std::string(StatusMessage(config.status()))}});
    return kExitUsage;
  }
  if (const auto* print = std::get_if<PrintAndExit>(&*config)) {
    (void)std::fputs(print->text.c_str(), stdout);
    return std::fflush(stdout) == 0 ? kExitOk : kExitFailure;
  }
  const auto& daemon = std::get<DaemonConfig>(*config);
  if (const Status status = CheckPaths(kind, daemon); !status.ok()) {
    LogError("cannot start", {{"error", std::string(StatusMessage(status))}});
    return kExitUsage;
  }
  ConfigureLog(daemon.log_level, daemon.log_format);
  if (daemon.check) {
    if (const Status status = Check(kind, daemon); !status.ok()) {
      LogError("cannot take over", {{"error", std::string(StatusMessage(status))}});
      return kExitFailure;
    }
    return kExitOk;
  }
  RaiseFileLimit();
  // Before the first thread, so that all of them inherit the mask and only we take the signals.
  const sigset_t signals = StopSignals();
  (void)::sigprocmask(SIG_BLOCK, &signals, nullptr);  // cannot fail with these arguments
  (void)::signal(SIGPIPE, SIG_IGN);
  auto given = ServiceFdStore::FromEnvironment();
  if (!given.ok()) {
    LogError("cannot start", {{"error", std::string(StatusMessage(given.status()))}});
    return kExitFailure;
  }
  ServiceFdStore fds(*std::move(given));
  const StatusOr<int> code = Serve(kind, daemon, fds);
  if (!code.ok()) {
    LogError("cannot start", {{"error", std::string(StatusMessage(code.status()))}});
    return kExitFailure;
  }
  return *code;
}

}  // namespace strata
