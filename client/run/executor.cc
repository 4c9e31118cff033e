// SPDX-License-Identifier: Apache-2.0
#include "client/run/executor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "client/random_name.h"
#include "client/run/bundle.h"
#include "client/run/container_root.h"
#include "client/run/executor_mounts.h"
#include "client/run/host_facts.h"
#include "client/run/mount_stubs.h"
#include "client/run/oci_runtime.h"
#include "client/run/process_watch.h"
#include "client/run/runtime_spec.h"
#include "client/run/signal_name.h"
#include "client/run/terminal_relay.h"
#include "client/run/user_lookup.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/mutex.h"

namespace strata {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kNetworkLimit{60'000};
constexpr milliseconds kKillLimit{7'000};
constexpr milliseconds kRunningLimit{120'000};
constexpr int kRunningPollMs = 100;
constexpr size_t kMaxSpecBytes = size_t{16} << 20;
constexpr size_t kMaxLogBytes = size_t{1} << 20;

// For what the host's network or none is enough: there is nothing to give back.
class PlainNetwork final : public ContainerNetwork {
 public:
  explicit PlainNetwork(Kind kind) : kind_(kind) {}
  [[nodiscard]] Kind kind() const override { return kind_; }
  [[nodiscard]] const std::string& path() const override { return path_; }

 private:
  const Kind kind_;
  const std::string path_;
};

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string Shown(const std::vector<std::string>& arguments) {
  std::string line;
  for (const std::string& argument : arguments) {
    line += (line.empty() ? "" : " ") + argument;
  }
  return line;
}

// What a runtime that has ended without a process says.
Status NotStarted(const std::string& log, int code) {
  const StatusOr<std::string> lines = ReadFileAt(AT_FDCWD, log, kMaxLogBytes);
  const std::string error = lines.ok() ? RuntimeError(*lines) : "";
  return MakeStatus(
      StatusCode::kFailedPrecondition,
      error.empty() ? "the runtime ended with " + std::to_string(code) + " before the process began"
                    : error);
}

ConsoleSize SizeFor(const ProcessStreams& streams) {
  const UserTerminal terminal = FindUserTerminal(streams);
  return {terminal.size.ws_row, terminal.size.ws_col};
}

class RuntimeExecutor final : public Executor {
 public:
  RuntimeExecutor(ExecutorOptions options, NetworkProvider& network, HostFacts facts,
                  std::unique_ptr<BundleDirectory> directory, std::unique_ptr<OciRuntime> runtime)
      : options_(std::move(options)),
        network_(network),
        facts_(std::move(facts)),
        directory_(std::move(directory)),
        runtime_(std::move(runtime)) {}

  StatusOr<RunResult> Run(CallContext& call, const RunRequest& request) override;
  StatusOr<RunResult> Exec(CallContext& call, std::string_view id,
                           const ProcessRequest& process) override;
  StatusOr<std::vector<RunningContainer>> List(CallContext& call) override;
  Status Kill(CallContext& call, std::string_view id, int signal) override;
  void Forward(int signal) override;
  Status RemoveStale(CallContext& call) override;

 private:
  struct Active {
    ProcessWatch* watch;
    int stop_signal;
  };
  class Registration;

  using StartRuntime = std::function<StatusOr<ChildProcess>(const RuntimeStreams&)>;

  StatusOr<std::unique_ptr<ContainerNetwork>> TakeNetwork(const RunRequest& request);
  StatusOr<RunResult> RunIn(CallContext& call, const RunRequest& request, const Bundle& bundle);
  Status WriteSpec(const RunRequest& request, const Bundle& bundle, const ContainerRoot& root,
                   const ContainerNetwork& network);
  [[nodiscard]] Status MakeMountPoints(const ContainerRoot& root,
                                       const std::vector<ExtraMount>& mounts,
                                       const std::vector<std::string>& destinations) const;
  StatusOr<RunResult> WatchRuntime(CallContext& call, const ProcessStreams& streams,
                                   int stop_signal, const StartRuntime& start,
                                   const WatchedProcess& process, const std::string& log);
  StatusOr<ContainerState> WaitRunning(CallContext& call, const BundleView& view);

  const ExecutorOptions options_;
  NetworkProvider& network_;
  const HostFacts facts_;
  const std::unique_ptr<BundleDirectory> directory_;
  const std::unique_ptr<OciRuntime> runtime_;

  Mutex mutex_;
  std::vector<Active> active_ ABSL_GUARDED_BY(mutex_);
};

// Makes a process one that Forward reaches.
class RuntimeExecutor::Registration {
 public:
  Registration(RuntimeExecutor& executor, ProcessWatch& watch, int stop_signal)
      : executor_(executor), watch_(watch) {
    const MutexLock lock(executor_.mutex_);
    executor_.active_.push_back({&watch, stop_signal});
  }
  ~Registration() {
    const MutexLock lock(executor_.mutex_);
    auto& active = executor_.active_;
    active.erase(std::find_if(active.begin(), active.end(),
                              [&](const Active& entry) { return entry.watch == &watch_; }));
  }
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

 private:
  RuntimeExecutor& executor_;
  ProcessWatch& watch_;
};

// --- run

StatusOr<std::unique_ptr<ContainerNetwork>> RuntimeExecutor::TakeNetwork(
    const RunRequest& request) {
  switch (request.network) {
    case RunNetwork::kHost:
      return std::make_unique<PlainNetwork>(ContainerNetwork::Kind::kHost);
    case RunNetwork::kNone:
      return std::make_unique<PlainNetwork>(ContainerNetwork::Kind::kNone);
    case RunNetwork::kDefault:
      break;
  }
  return network_.Take(request.hostname, kNetworkLimit);
}

StatusOr<RunResult> RuntimeExecutor::WatchRuntime(CallContext& call, const ProcessStreams& streams,
                                                  int stop_signal, const StartRuntime& start,
                                                  const WatchedProcess& process,
                                                  const std::string& log) {
  RuntimeStreams given{streams.in, streams.out, streams.err};
  std::unique_ptr<TerminalRelay> terminal;
  if (streams.terminal) {
    STRATA_ASSIGN_OR_RETURN(terminal, TerminalRelay::Open(streams));
    given.in = given.out = given.err = terminal->program_end();
  }
  STRATA_ASSIGN_OR_RETURN(ChildProcess child, start(given));
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<ProcessWatch> watch,
                          ProcessWatch::Create(std::move(child), std::move(terminal)));
  StatusOr<WatchResult> result = WatchResult{};
  {
    const Registration registration(*this, *watch, stop_signal);
    result = watch->Watch(call, process);
  }
  STRATA_RETURN_IF_ERROR(result.status());
  if (!result->started && result->code != 0) {
    return NotStarted(log, result->code);
  }
  return RunResult{result->code};
}

Status RuntimeExecutor::WriteSpec(const RunRequest& request, const Bundle& bundle,
                                  const ContainerRoot& root, const ContainerNetwork& network) {
  SpecInput input{.id = bundle.id(),
                  .rootfs = bundle.Join(kRootfsName),
                  .resolv_conf = bundle.Join("resolv.conf"),
                  .hosts = bundle.Join("hosts"),
                  .user = {},
                  .console = SizeFor(request.process.streams),
                  .network = network.kind(),
                  .network_path = network.path(),
                  .mounts = {}};
  STRATA_ASSIGN_OR_RETURN(input.user, LookUpUser(root, request.process.user));
  STRATA_RETURN_IF_ERROR(MakeWorkingDirectory(root, request.process.cwd,
                                              HostId(options_.uid_map, input.user.uid),
                                              HostId(options_.gid_map, input.user.gid)));
  STRATA_ASSIGN_OR_RETURN(input.mounts, PrepareMounts(bundle, request, facts_.user_namespace));
  STRATA_ASSIGN_OR_RETURN(const Json spec, RuntimeSpec(request, input, options_, facts_));
  return bundle.WriteFile(kSpecFile, Dump(spec), 0600);
}

// As a runtime makes them when it may: for a file that is bound a file, else directories.
Status RuntimeExecutor::MakeMountPoints(const ContainerRoot& root,
                                        const std::vector<ExtraMount>& mounts,
                                        const std::vector<std::string>& destinations) const {
  std::set<std::string> files = {"/etc/resolv.conf", "/etc/hosts"};
  for (const ExtraMount& extra : mounts) {
    struct stat source {};
    if (::stat(extra.mount.source.c_str(), &source) == 0 && !S_ISDIR(source.st_mode)) {
      files.insert(extra.destination);
    }
  }
  for (const std::string& destination : destinations) {
    STRATA_RETURN_IF_ERROR(MakeMountPoint(root, destination, files.count(destination) > 0,
                                          HostId(options_.uid_map, 0),
                                          HostId(options_.gid_map, 0)));
  }
  return OkStatus();
}

StatusOr<RunResult> RuntimeExecutor::RunIn(CallContext& call, const RunRequest& request,
                                           const Bundle& bundle) {
  const std::string stop = request.stop_signal.empty() ? "SIGTERM" : request.stop_signal;
  STRATA_ASSIGN_OR_RETURN(const int stop_signal, ParseSignal(stop));
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<ContainerNetwork> network, TakeNetwork(request));
  if (request.insecure) {
    network->Spoil();  // it may change what the next one would find
  }
  STRATA_RETURN_IF_ERROR(
      WriteNameFiles(bundle, request, options_, network->kind() == ContainerNetwork::Kind::kHost));
  STRATA_RETURN_IF_ERROR(MountRoot(bundle, request, options_));
  STRATA_ASSIGN_OR_RETURN(const ContainerRoot root, ContainerRoot::Open(bundle.Join(kRootfsName)));
  STRATA_RETURN_IF_ERROR(WriteSpec(request, bundle, root, *network));
  STRATA_RETURN_IF_ERROR(call.Check());
  std::vector<std::string> destinations = {"/etc/resolv.conf", "/etc/hosts"};
  for (const ExtraMount& mount : request.mounts) {
    destinations.push_back(mount.destination);
  }
  const bool maps_ids = !options_.uid_map.empty();
  if (maps_ids) {
    destinations.insert(destinations.end(), {"/proc", "/dev", "/sys"});
  }
  const MountStubs stubs(root, destinations);
  if (maps_ids) {
    STRATA_RETURN_IF_ERROR(MakeMountPoints(root, request.mounts, destinations));
  }
  const std::string log = bundle.Join("runc-log.json");
  const WatchedProcess process{.pid_file = bundle.Join(kPidFile),
                               .started = request.started,
                               .kill = [&](milliseconds limit) {
                                 return runtime_->Kill(bundle.path(), bundle.id(), SIGKILL, limit);
                               }};
  StatusOr<RunResult> result = WatchRuntime(
      call, request.process.streams, stop_signal,
      [&](const RuntimeStreams& streams) {
        return runtime_->Run(bundle.path(), bundle.id(), process.pid_file, log, streams);
      },
      process, log);
  if (const Status deleted = runtime_->Delete(bundle.path(), bundle.id()); !deleted.ok()) {
    LogWarn("container not deleted, ignoring",
            {{"container", bundle.id()}, {"error", std::string(StatusMessage(deleted))}});
  }
  stubs.Remove(root);
  return result;
}

StatusOr<RunResult> RuntimeExecutor::Run(CallContext& call, const RunRequest& request) {
  STRATA_RETURN_IF_ERROR(call.Check());
  // Goes last: with it goes what is mounted in it.
  STRATA_ASSIGN_OR_RETURN(const Bundle bundle, directory_->Create(request.id));
  STRATA_RETURN_IF_ERROR(bundle.WriteNote({request.image, Shown(request.process.args)}));
  return RunIn(call, request, bundle);
}

// --- containers that run

StatusOr<ContainerState> RuntimeExecutor::WaitRunning(CallContext& call, const BundleView& view) {
  const auto end = steady_clock::now() + kRunningLimit;
  while (true) {
    STRATA_RETURN_IF_ERROR(call.Check());
    StatusOr<ContainerState> state = runtime_->State(view.path, view.id);
    if (state.ok() && state->status == "running") {
      return state;
    }
    if (state.ok() && state->status == "stopped") {
      return MakeStatus(StatusCode::kFailedPrecondition, "container " + view.id + " has stopped");
    }
    if (!state.ok() && state.status().code() != StatusCode::kNotFound) {
      return state.status();
    }
    STRATA_RETURN_IF_ERROR(directory_->Find(view.id).status());
    if (steady_clock::now() > end) {
      return MakeStatus(StatusCode::kDeadlineExceeded,
                        "container " + view.id + " does not run after " +
                            std::to_string(kRunningLimit.count() / 1000) + " s");
    }
    (void)::poll(nullptr, 0, kRunningPollMs);
  }
}

// The files of one exec, in a bundle that may be another worker's.
class ExecFiles {
 public:
  static StatusOr<ExecFiles> Create(const std::string& bundle, std::string_view process) {
    STRATA_ASSIGN_OR_RETURN(const std::string id, RandomName());
    ExecFiles files(bundle + "/exec-" + id);
    STRATA_ASSIGN_OR_RETURN(const UniqueFd fd,
                            OpenFile(files.process(), O_WRONLY | O_CREAT | O_EXCL, 0600));
    STRATA_RETURN_IF_ERROR(WriteAll(fd.get(), process, files.process()));
    return files;
  }
  ~ExecFiles() {
    if (!base_.empty()) {
      for (const std::string& path : {process(), pid(), log()}) {
        (void)::unlink(path.c_str());  // the bundle may be gone with them
      }
    }
  }
  ExecFiles(ExecFiles&& other) noexcept : base_(std::exchange(other.base_, {})) {}
  ExecFiles& operator=(ExecFiles&&) = delete;
  ExecFiles(const ExecFiles&) = delete;
  ExecFiles& operator=(const ExecFiles&) = delete;

  [[nodiscard]] std::string process() const { return base_ + ".json"; }
  [[nodiscard]] std::string pid() const { return base_ + ".pid"; }
  [[nodiscard]] std::string log() const { return base_ + ".log"; }

 private:
  explicit ExecFiles(std::string base) : base_(std::move(base)) {}
  std::string base_;
};

StatusOr<RunResult> RuntimeExecutor::Exec(CallContext& call, std::string_view id,
                                          const ProcessRequest& process) {
  STRATA_ASSIGN_OR_RETURN(const BundleView view, directory_->Find(id));
  STRATA_ASSIGN_OR_RETURN(const ContainerState state, WaitRunning(call, view));
  STRATA_ASSIGN_OR_RETURN(const std::string text,
                          ReadFileAt(AT_FDCWD, view.path + "/" + kSpecFile, kMaxSpecBytes));
  const Json spec = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  ProcessUser user;
  if (!process.user.empty()) {
    // What the container itself sees, whosever mounts it is made of.
    STRATA_ASSIGN_OR_RETURN(const ContainerRoot root,
                            ContainerRoot::Open("/proc/" + std::to_string(state.pid) + "/root"));
    STRATA_ASSIGN_OR_RETURN(user, LookUpUser(root, process.user));
  }
  STRATA_ASSIGN_OR_RETURN(
      const Json wanted,
      ExecProcess(spec, process, process.user.empty() ? nullptr : &user, SizeFor(process.streams)));
  STRATA_ASSIGN_OR_RETURN(const ExecFiles files, ExecFiles::Create(view.path, Dump(wanted)));
  const WatchedProcess watched{.pid_file = files.pid(), .started = {}, .kill = [&](milliseconds) {
                                 const int pid = ReadPidFile(files.pid());
                                 return pid > 0 && ::kill(pid, SIGKILL) == 0
                                            ? OkStatus()
                                            : MakeStatus(StatusCode::kNotFound, "no process");
                               }};
  return WatchRuntime(
      call, process.streams, SIGTERM,
      [&](const RuntimeStreams& streams) {
        return runtime_->Exec(view.id, files.process(), files.pid(), files.log(), streams);
      },
      watched, files.log());
}

StatusOr<std::vector<RunningContainer>> RuntimeExecutor::List(CallContext& call) {
  STRATA_ASSIGN_OR_RETURN(const std::vector<BundleView> views, directory_->List());
  std::vector<RunningContainer> containers;
  for (const BundleView& view : views) {
    STRATA_RETURN_IF_ERROR(call.Check());
    const StatusOr<ContainerState> state = runtime_->State(view.path, view.id);
    if (!state.ok() && state.status().code() != StatusCode::kNotFound) {
      return state.status();
    }
    if (!directory_->Find(view.id).ok()) {
      continue;  // has ended meanwhile
    }
    const std::string status = state.ok() ? state->status : view.pid == 0 ? "creating" : "stopped";
    containers.push_back({.id = view.id,
                          .status = status,
                          .pid = state.ok() ? state->pid : 0,
                          .image = view.note.image,
                          .command = view.note.command,
                          .started_unix = view.started_unix});
  }
  return containers;
}

Status RuntimeExecutor::Kill(CallContext& call, std::string_view id, int signal) {
  STRATA_RETURN_IF_ERROR(call.Check());
  if (signal < 1 || signal >= NSIG) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "signal " + std::to_string(signal) + ": expected a number from 1 to 64");
  }
  STRATA_ASSIGN_OR_RETURN(const BundleView view, directory_->Find(id));
  const Status status = runtime_->Kill(view.path, view.id, signal, kKillLimit);
  return status.code() == StatusCode::kNotFound
             ? MakeStatus(StatusCode::kNotFound, "container " + view.id + " not found")
             : status;
}

void RuntimeExecutor::Forward(int signal) {
  const MutexLock lock(mutex_);
  for (const Active& entry : active_) {
    entry.watch->Forward(signal == SIGTERM ? entry.stop_signal : signal);
  }
}

Status RuntimeExecutor::RemoveStale(CallContext& call) {
  STRATA_ASSIGN_OR_RETURN(std::vector<Bundle> stale, directory_->TakeStale());
  Status first = OkStatus();
  for (Bundle& bundle : stale) {
    Status status = call.Check();
    status.Update(status.ok() ? runtime_->Delete(bundle.path(), bundle.id()) : OkStatus());
    if (status.ok()) {
      status = bundle.Remove();
    } else {
      bundle.Leave();  // it can be tried again as long as it is there
    }
    first.Update(Annotate(status, "remove stale container " + bundle.id()));
  }
  return first;
}

}  // namespace

StatusOr<std::unique_ptr<Executor>> Executor::Create(const ExecutorOptions& options,
                                                     NetworkProvider& network) {
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<OciRuntime> runtime, OciRuntime::Find(options.binary));
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<BundleDirectory> directory,
                          BundleDirectory::Open(options.directory));
  STRATA_ASSIGN_OR_RETURN(HostFacts facts, ReadHostFacts());
  return std::make_unique<RuntimeExecutor>(options, network, std::move(facts), std::move(directory),
                                           std::move(runtime));
}

}  // namespace strata
