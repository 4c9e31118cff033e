// SPDX-License-Identifier: Apache-2.0
//
// The verbs run, exec, ps and kill.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <optional>
#include <utility>

#include "client/image/image_source.h"
#include "client/random_name.h"
#include "client/run/signal_name.h"
#include "client/stratactl/output.h"
#include "client/stratactl/table.h"
#include "client/worker/commands.h"
#include "client/worker/progress.h"
#include "client/worker/run_flags.h"
#include "client/worker/signal_relay.h"
#include "client/worker/verb_arguments.h"
#include "client/worker/worker.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/mutex.h"

namespace strata {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kCollectLimit{10'000};
// How long a run waits for one of the places of max-parallelism.
constexpr milliseconds kSlotPatience{std::chrono::hours(24)};
// Signals of the kind that asks to end, after which the process is killed instead.
constexpr int kMostAsked = 3;

bool AsksToEnd(int number) {
  return number == SIGINT || number == SIGTERM || number == SIGHUP || number == SIGQUIT;
}

// Where signals go: to the process once it runs, else they end what is under way. One that comes
// while the process is being started waits for it: it may have begun before we hear of that. So
// does a new size of the terminal.
class RunSignals {
 public:
  explicit RunSignals(CallContext& call) : call_(call) {}

  Status Start() {
    STRATA_ASSIGN_OR_RETURN(relay_, SignalRelay::Start([this](int number) { On(number); }));
    return OkStatus();
  }

  void Starting() {
    const MutexLock lock(mutex_);
    phase_ = Phase::kStarting;
  }
  // `executor` must outlive this, or the call of Ended.
  void Running(Executor& executor) {
    int waiting = 0;
    bool resized = false;
    {
      const MutexLock lock(mutex_);
      phase_ = Phase::kRunning;
      executor_ = &executor;
      waiting = std::exchange(waiting_, 0);
      resized = std::exchange(resized_, false);
    }
    if (resized) {
      executor.Forward(SIGWINCH);
    }
    if (waiting != 0) {
      executor.Forward(waiting);
    }
  }
  void Ended() {
    const MutexLock lock(mutex_);
    phase_ = Phase::kNone;
    executor_ = nullptr;
  }

 private:
  enum class Phase { kNone, kStarting, kRunning };

  void On(int number) {
    Executor* executor = nullptr;
    {
      const MutexLock lock(mutex_);
      const bool asks = AsksToEnd(number);
      asked_ += asks && phase_ != Phase::kNone ? 1 : 0;
      if (asks && (phase_ == Phase::kNone || asked_ > kMostAsked ||
                   (phase_ == Phase::kStarting && waiting_ != 0))) {
        call_.Cancel();
      } else if (phase_ == Phase::kStarting && number == SIGWINCH) {
        resized_ = true;
      } else if (phase_ == Phase::kStarting) {
        waiting_ = number;
      } else {
        executor = executor_;
      }
    }
    // The executor lives for as long as the verb, and the relay ends before it.
    if (executor != nullptr) {
      executor->Forward(number);
    }
  }

  CallContext& call_;
  Mutex mutex_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kNone;
  Executor* executor_ ABSL_GUARDED_BY(mutex_) = nullptr;
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  bool resized_ ABSL_GUARDED_BY(mutex_) = false;
  int asked_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<SignalRelay> relay_;  // last: it uses the others
};

ProcessStreams Streams(bool interactive, bool tty) {
  return {.in = interactive ? STDIN_FILENO : -1,
          .out = STDOUT_FILENO,
          .err = STDERR_FILENO,
          .terminal = tty};
}

StatusOr<PulledImage> FindImage(CallContext& context, Worker& worker, const RunFlags& flags) {
  STRATA_ASSIGN_OR_RETURN(const ImageSource source, ParseImageSource(flags.image));
  STRATA_ASSIGN_OR_RETURN(PullOptions options, worker.OptionsForPull());
  STRATA_ASSIGN_OR_RETURN(Puller * images, worker.Images());
  if (flags.pull != PullWhen::kAlways) {
    // Nothing is shown of an image that is here: what a process says stands alone.
    StatusOr<PulledImage> image = images->Open(context, source.name, options);
    if (image.ok() || image.status().code() != StatusCode::kNotFound ||
        flags.pull == PullWhen::kNever) {
      return image;
    }
  }
  TerminalProgress progress(STDERR_FILENO, ::isatty(STDERR_FILENO) == 1);
  options.progress = flags.quiet ? nullptr : &progress;
  return images->Pull(context, source, options);
}

// One run, from the image to what is left of it.
class OneRun {
 public:
  OneRun(Worker& worker, const RunFlags& flags) : worker_(worker), flags_(flags) {}

  StatusOr<int> Go() {
    RunSignals signals(context_);
    STRATA_RETURN_IF_ERROR(signals.Start());
    STRATA_RETURN_IF_ERROR(RemoveStale());
    STRATA_ASSIGN_OR_RETURN(image_, FindImage(context_, worker_, flags_));
    STRATA_ASSIGN_OR_RETURN(RunRequest request, RequestFor(flags_, image_.config));
    STRATA_ASSIGN_OR_RETURN(snapshots_, worker_.Snapshots());
    STRATA_ASSIGN_OR_RETURN(
        const std::optional<FileLock> slot,
        worker_.state().TakeSlot(context_, worker_.config().max_parallelism, kSlotPatience));
    STRATA_ASSIGN_OR_RETURN(active_, RandomName());
    active_.insert(0, "run-");
    STRATA_ASSIGN_OR_RETURN(request.rootfs, PrepareRoot());
    request.image = image_.name;
    request.process.streams = Streams(flags_.interactive, flags_.tty);
    const StatusOr<RunResult> result = RunProcess(std::move(request), signals);
    return Finish(result);
  }

 private:
  Status RemoveStale() {
    STRATA_ASSIGN_OR_RETURN(executor_, worker_.OpenExecutor(/*for_runs=*/true));
    if (const Status status = executor_->RemoveStale(context_); !status.ok()) {
      LogWarn("what a killed run has left cannot be removed, ignoring",
              {{"error", std::string(StatusMessage(status))}});
    }
    return OkStatus();
  }

  StatusOr<std::vector<Mount>> PrepareRoot() {
    if (!image_.snapshot.empty()) {
      // Held first, so that nothing is pruned between a look at it and its use.
      STRATA_ASSIGN_OR_RETURN(image_hold_, snapshots_->HoldSnapshot(image_.snapshot));
      STRATA_RETURN_IF_ERROR(snapshots_->Touch(context_, image_.snapshot));
    }
    return snapshots_->Prepare(context_, active_, image_.snapshot, RecordType::kRegular,
                               "run of " + image_.name, {});
  }

  StatusOr<RunResult> RunProcess(RunRequest request, RunSignals& signals) {
    request.started = [this, &signals](int /*pid*/) { signals.Running(*executor_); };
    signals.Starting();
    StatusOr<RunResult> result = executor_->Run(context_, request);
    signals.Ended();
    return result;
  }

  // The process has ended, or has not begun. Signals no longer end what is done here.
  StatusOr<int> Finish(const StatusOr<RunResult>& result) {
    CallContext context;
    Status kept;
    if (result.ok() && !flags_.commit.empty()) {
      kept = Commit(context);
    }
    if (!result.ok() || !kept.ok() || (flags_.remove && flags_.commit.empty())) {
      if (const Status removed = snapshots_->Remove(context, active_); !removed.ok()) {
        LogWarn("the snapshot of the run cannot be removed, the next prune will, ignoring",
                {{"error", std::string(StatusMessage(removed))}});
      }
    }
    image_hold_.reset();
    STRATA_RETURN_IF_ERROR(result.status());
    STRATA_RETURN_IF_ERROR(Annotate(kept, "the process ended with " + std::to_string(result->code) +
                                              ", but --commit " + flags_.commit));
    if (const Status collected = worker_.Collect(kCollectLimit); !collected.ok()) {
      LogWarn("garbage collection failed, ignoring",
              {{"error", std::string(StatusMessage(collected))}});
    }
    return result->code;
  }

  Status Commit(CallContext& context) {
    STRATA_ASSIGN_OR_RETURN(const ImageSource source, ParseImageSource(flags_.commit));
    STRATA_ASSIGN_OR_RETURN(Puller * images, worker_.Images());
    return images->CommitImage(context, image_, active_, source.name, image_.config).status();
  }

  Worker& worker_;
  const RunFlags& flags_;
  std::string active_;
  CallContext context_;
  PulledImage image_;
  WorkerSnapshots* snapshots_ = nullptr;
  Executor* executor_ = nullptr;
  std::unique_ptr<WorkerSnapshots::Hold> image_hold_;
};

// What runs already needs neither snapshotter nor network.
StatusOr<Executor*> ExecutorOf(const std::unique_ptr<Worker>& worker) {
  return worker->OpenExecutor(/*for_runs=*/false);
}

}  // namespace

StatusOr<int> RunVerb(const VerbCall& call) {
  STRATA_ASSIGN_OR_RETURN(const auto read, ReadRunFlags(call.arguments, call.environment.variable));
  if (const auto* usage = std::get_if<VerbUsage>(&read)) {
    call.out << usage->text;
    return kWorkerOk;
  }
  const auto& flags = std::get<RunFlags>(read);
  if (!flags.commit.empty()) {
    STRATA_RETURN_IF_ERROR(Annotate(ParseImageSource(flags.commit).status(), "--commit"));
  }
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Worker> worker,
                          Worker::Open(call.config, call.environment));
  return OneRun(*worker, flags).Go();
}

StatusOr<int> ExecVerb(const VerbCall& call) {
  STRATA_ASSIGN_OR_RETURN(const auto read,
                          ReadExecFlags(call.arguments, call.environment.variable));
  if (const auto* usage = std::get_if<VerbUsage>(&read)) {
    call.out << usage->text;
    return kWorkerOk;
  }
  const auto& flags = std::get<ExecFlags>(read);
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Worker> worker,
                          Worker::Open(call.config, call.environment));
  STRATA_ASSIGN_OR_RETURN(Executor * executor, ExecutorOf(worker));
  CallContext context;
  RunSignals signals(context);
  STRATA_RETURN_IF_ERROR(signals.Start());
  signals.Running(*executor);
  ProcessRequest process = flags.process;
  process.streams = Streams(flags.interactive, flags.tty);
  STRATA_ASSIGN_OR_RETURN(const RunResult result, executor->Exec(context, flags.id, process));
  return result.code;
}

StatusOr<int> PsVerb(const VerbCall& call) {
  bool json = false;
  VerbArguments verb("ps", "Lists what runs");
  verb.app().add_flag("--json", json, "for programs");
  STRATA_ASSIGN_OR_RETURN(const std::optional<VerbUsage> usage, verb.Read(call.arguments));
  if (usage.has_value()) {
    call.out << usage->text;
    return kWorkerOk;
  }
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Worker> worker,
                          Worker::Open(call.config, call.environment));
  STRATA_ASSIGN_OR_RETURN(Executor * executor, ExecutorOf(worker));
  CallContext context;
  STRATA_ASSIGN_OR_RETURN(const std::vector<RunningContainer> running, executor->List(context));
  if (json) {
    nlohmann::json list = nlohmann::json::array();
    for (const RunningContainer& one : running) {
      list.push_back({{"id", one.id},
                      {"status", one.status},
                      {"pid", one.pid},
                      {"image", one.image},
                      {"command", one.command},
                      {"started_unix", one.started_unix}});
    }
    PrintJson(call.out, list);
    return kWorkerOk;
  }
  std::vector<std::vector<std::string>> rows;
  rows.reserve(running.size());
  const int64_t now = ::time(nullptr);
  for (const RunningContainer& one : running) {
    rows.push_back(
        {one.id, one.status, std::to_string(one.pid),
         ShowSeconds(static_cast<uint64_t>(std::max<int64_t>(now - one.started_unix, 0))),
         Shortened(Printable(one.image), 48), Shortened(Printable(one.command), 60)});
  }
  PrintTable(call.out, {"ID", "STATUS", "PID", "AGE", "IMAGE", "COMMAND"}, rows);
  return kWorkerOk;
}

StatusOr<int> KillVerb(const VerbCall& call) {
  std::string id;
  std::string name = "TERM";
  VerbArguments verb("kill", "Sends a signal to the process of a container");
  verb.app().add_option("ID", id, "as ps shows it")->required();
  verb.app().add_option("-s,--signal", name, "by name or number (default TERM)");
  STRATA_ASSIGN_OR_RETURN(const std::optional<VerbUsage> usage, verb.Read(call.arguments));
  if (usage.has_value()) {
    call.out << usage->text;
    return kWorkerOk;
  }
  STRATA_ASSIGN_OR_RETURN(const int number, ParseSignal(name));
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Worker> worker,
                          Worker::Open(call.config, call.environment));
  STRATA_ASSIGN_OR_RETURN(Executor * executor, ExecutorOf(worker));
  CallContext context;
  STRATA_RETURN_IF_ERROR(executor->Kill(context, id, number));
  return kWorkerOk;
}

}  // namespace strata
