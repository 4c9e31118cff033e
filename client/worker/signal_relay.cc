// SPDX-License-Identifier: Apache-2.0
#include "client/worker/signal_relay.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <utility>

namespace strata {
namespace {

constexpr std::array kRelayed = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
// What ends the thread.
constexpr unsigned char kEnd = 0;

// For the handler, which has nothing else.
std::atomic<int> g_writer{-1};
std::array<struct sigaction, NSIG> g_before;

void Catch(int signal) {
  const int saved = errno;
  const auto byte = static_cast<unsigned char>(signal);
  // A full pipe holds more of them than anybody waits for.
  (void)!::write(g_writer.load(std::memory_order_relaxed), &byte, 1);
  errno = saved;
}

void Drop(int /*signal*/) {}

void Install(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  (void)::sigaction(signal, &action, &g_before[static_cast<size_t>(signal)]);  // a valid signal
}

void Restore(int signal) {
  (void)::sigaction(signal, &g_before[static_cast<size_t>(signal)], nullptr);
}

}  // namespace

StatusOr<std::unique_ptr<SignalRelay>> SignalRelay::Start(
    std::function<void(int signal)> on_signal) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "make a pipe for signals");
  }
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  (void)::fcntl(writer.get(), F_SETFL, O_NONBLOCK);  // cannot fail on a pipe
  return std::unique_ptr<SignalRelay>(
      new SignalRelay(std::move(on_signal), std::move(reader), std::move(writer)));
}

SignalRelay::SignalRelay(std::function<void(int)> on_signal, UniqueFd reader, UniqueFd writer)
    : on_signal_(std::move(on_signal)), reader_(std::move(reader)), writer_(std::move(writer)) {
  g_writer.store(writer_.get());
  for (const int signal : kRelayed) {
    Install(signal, Catch);
  }
  Install(SIGPIPE, Drop);
  thread_ = std::thread([this] {
    unsigned char byte = kEnd;
    while (true) {
      const ssize_t got = ::read(reader_.get(), &byte, 1);
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got != 1 || byte == kEnd) {
        return;
      }
      on_signal_(byte);
    }
  });
}

SignalRelay::~SignalRelay() {
  for (const int signal : kRelayed) {
    Restore(signal);
  }
  Restore(SIGPIPE);
  const unsigned char end = kEnd;
  // The writer does not block: with a full pipe the thread has enough to read before it looks.
  while (::write(writer_.get(), &end, 1) != 1) {
    std::this_thread::yield();
  }
  thread_.join();
}

}  // namespace strata
