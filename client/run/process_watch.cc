// SPDX-License-Identifier: Apache-2.0
#include "client/run/process_watch.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// How often a cancelled call, the pid file and the size of the terminal are looked at.
constexpr milliseconds kStep{50};
constexpr milliseconds kStepBeforeStart{5};
constexpr milliseconds kKillEvery{50};
constexpr milliseconds kKillLimit{7'000};
// Generous: the root may be a layer that is fetched while its first program is looked for.
constexpr milliseconds kStartLimit{120'000};
constexpr milliseconds kLastOutputLimit{5'000};

}  // namespace

int ReadPidFile(const std::string& path) {
  const StatusOr<std::string> text = ReadFileAt(AT_FDCWD, path, 64);
  int pid = 0;
  if (!text.ok() ||
      std::from_chars(text->data(), text->data() + text->size(), pid).ec != std::errc()) {
    return 0;
  }
  return pid;
}

StatusOr<std::unique_ptr<ProcessWatch>> ProcessWatch::Create(
    ChildProcess child, std::unique_ptr<TerminalRelay> terminal) {
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) {
    return ErrnoStatus(errno, "eventfd");
  }
  if (terminal != nullptr) {
    terminal->CloseProgramEnd();
  }
  return std::unique_ptr<ProcessWatch>(
      new ProcessWatch(std::move(child), std::move(terminal), std::move(wake)));
}

bool ProcessWatch::Step(milliseconds limit) {
  if (terminal_ != nullptr) {
    terminal_->Relay();
    if (terminal_->TakeResize()) {
      (void)child_.Signal(SIGWINCH);  // its end is seen below
    }
  }
  std::vector<pollfd> wanted = {{child_.pidfd(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
  if (terminal_ != nullptr) {
    terminal_->AddTo(wanted);
  }
  (void)::poll(wanted.data(), wanted.size(), static_cast<int>(limit.count()));
  uint64_t count = 0;
  (void)!::read(wake_.get(), &count, sizeof(count));  // EAGAIN unless woken
  return child_.Wait(milliseconds(0)).has_value();
}

void ProcessWatch::KillAll(const WatchedProcess& process) {
  const auto end = steady_clock::now() + kKillLimit;
  while (steady_clock::now() < end) {
    const auto left = std::chrono::ceil<milliseconds>(end - steady_clock::now());
    // It fails as long as the container is only being made, and when the process has ended.
    (void)process.kill(left);
    const auto next = steady_clock::now() + kKillEvery;
    while (steady_clock::now() < next) {
      if (Step(kStepBeforeStart)) {
        return;
      }
    }
  }
  (void)child_.Signal(SIGKILL);
  (void)child_.Wait(kKillLimit);
}

void ProcessWatch::FinishRelay() {
  const auto end = steady_clock::now() + kLastOutputLimit;
  while (terminal_ != nullptr && !terminal_->finished() && steady_clock::now() < end) {
    terminal_->Relay();
    std::vector<pollfd> wanted;
    terminal_->AddTo(wanted);
    if (!terminal_->finished()) {
      (void)::poll(wanted.data(), wanted.size(), static_cast<int>(kStep.count()));
    }
  }
}

StatusOr<WatchResult> ProcessWatch::Watch(CallContext& call, const WatchedProcess& process) {
  WatchResult result;
  const auto start_end = steady_clock::now() + kStartLimit;
  const auto look_for_start = [&] {
    const int pid = result.started ? 0 : ReadPidFile(process.pid_file);
    if (pid > 0) {
      result.started = true;
      if (process.started) {
        process.started(pid);
      }
    }
  };
  while (!Step(result.started ? kStep : kStepBeforeStart)) {
    look_for_start();
    const bool late = !result.started && steady_clock::now() > start_end;
    if (call.cancelled() || late) {
      KillAll(process);
      FinishRelay();
      STRATA_RETURN_IF_ERROR(call.Check());
      return MakeStatus(
          StatusCode::kDeadlineExceeded,
          "the process did not begin within " + std::to_string(kStartLimit.count() / 1000) + " s");
    }
  }
  look_for_start();
  FinishRelay();
  result.code = *child_.Wait(milliseconds(0));
  return result;
}

void ProcessWatch::Forward(int signal) {
  if (signal != SIGKILL && signal != SIGWINCH) {
    (void)child_.Signal(signal);  // there is nobody to tell once it has ended
  }
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof(one));  // full only when it is awake anyway
}

}  // namespace strata
