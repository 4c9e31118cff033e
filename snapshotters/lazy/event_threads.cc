// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/event_threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>

#include "snapshotters/base/mutex.h"

namespace strata {
namespace {

constexpr int kMostThreads = 16;
constexpr std::chrono::milliseconds kInterruptInterval{5};

// Of those that are for applications; the C library keeps the lowest for itself (signal(7)).
int WakeSignal() {
  return SIGRTMIN + 5;
}

Status HandleWakeSignal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};  // only its coming counts; without SA_RESTART, so read(2) ends
  return ::sigaction(WakeSignal(), &action, nullptr) == 0
             ? OkStatus()
             : ErrnoStatus(errno, "handle the signal for event threads");
}

std::vector<int> UsableCpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) {
        cpus.push_back(cpu);
      }
    }
  }
  return cpus;
}

}  // namespace

class EventThreads::Thread {
 public:
  // `cpu` < 0: wherever it likes.
  Thread(const std::string& name, int cpu, const std::function<void()>& run)
      : thread_([this, name, cpu, run] {
          SetUp(name, cpu);
          run();
          const MutexLock lock(mutex_);
          ended_ = true;
          changed_.SignalAll();
        }) {}

  ~Thread() { thread_.join(); }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  // A signal may come just before the call that it should interrupt, so one is not enough.
  void InterruptUntilEnded() {
    const MutexLock lock(mutex_);
    while (!ended_) {
      (void)::pthread_kill(thread_.native_handle(), WakeSignal());  // it has not been joined
      (void)changed_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kInterruptInterval);
    }
  }

 private:
  static void SetUp(const std::string& name, int cpu) {
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, WakeSignal());
    (void)::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);  // fails for bad arguments only
    (void)::pthread_setname_np(::pthread_self(), name.c_str());
    if (cpu >= 0) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(static_cast<size_t>(cpu), &set);
      // One whose CPU was taken away works elsewhere, more slowly.
      (void)::pthread_setaffinity_np(::pthread_self(), sizeof(set), &set);
    }
  }

  Mutex mutex_;
  CondVar changed_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses the others
};

EventThreads::EventThreads() = default;

EventThreads::~EventThreads() {
  Stop();
}

Status EventThreads::Start(int count, const std::function<void()>& run) {
  STRATA_RETURN_IF_ERROR(HandleWakeSignal());
  const std::vector<int> cpus = UsableCpus();
  if (count <= 0) {
    count = std::clamp(static_cast<int>(cpus.size()), 1, kMostThreads);
  }
  for (int i = 0; i < count; ++i) {
    const int cpu = cpus.empty() ? -1 : cpus[static_cast<size_t>(i) % cpus.size()];
    threads_.push_back(std::make_unique<Thread>("erofs-" + std::to_string(i), cpu, run));
  }
  return OkStatus();
}

void EventThreads::Stop() {
  for (const std::unique_ptr<Thread>& thread : threads_) {
    thread->InterruptUntilEnded();
  }
  threads_.clear();
}

}  // namespace strata
