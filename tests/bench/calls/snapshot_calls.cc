// SPDX-License-Identifier: Apache-2.0
//
// strata-bench-calls SOCKET CALL...: single calls of a snapshotter, and how long each took.
//
//   prepare KEY              the source of the mount: for an active without parent, its files
//   commit NAME KEY          seconds
//   remove KEY               seconds
//   cleanup                  seconds
//   usage KEY COUNT          COUNT lines: seconds, bytes, inodes
//   load PREFIX PAUSE_US     Prepares of PREFIX-0, PREFIX-1, ..., one every PAUSE_US microseconds,
//                            until standard input ends; each one's begin (CLOCK_MONOTONIC) and
//                            seconds, then all are removed
//
// The first call on a connection is not one that is measured.
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/dial.h"
#include "client/proxy_snapshotter.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/core/snapshotter.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kLimit{300};
constexpr char kUsage[] = "expected SOCKET prepare|commit|remove|cleanup|usage|load ARGUMENTS";

double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

Status Prepare(Snapshotter& snapshotter, const std::string& key) {
  CallContext call;
  STRATA_ASSIGN_OR_RETURN(const std::vector<Mount> mounts, snapshotter.Prepare(call, key, "", {}));
  if (mounts.size() != 1) {
    return MakeStatus(StatusCode::kFailedPrecondition, "expected one mount");
  }
  (void)std::puts(mounts.front().source.c_str());
  return OkStatus();
}

template <typename Call>
Status Timed(const Call& call) {
  const Clock::time_point begin = Clock::now();
  STRATA_RETURN_IF_ERROR(call());
  (void)std::printf("%.6f\n", Seconds(Clock::now() - begin));
  return OkStatus();
}

Status MeasureUsage(Snapshotter& snapshotter, const std::string& key, int count) {
  CallContext call;
  for (int i = 0; i < count; ++i) {
    const Clock::time_point begin = Clock::now();
    STRATA_ASSIGN_OR_RETURN(const Usage usage, snapshotter.GetUsage(call, key));
    (void)std::printf("%.6f %lld %lld\n", Seconds(Clock::now() - begin),
                      static_cast<long long>(usage.size), static_cast<long long>(usage.inodes));
  }
  return OkStatus();
}

bool InputEnded() {
  pollfd input = {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  return ::poll(&input, 1, 0) > 0;
}

Status Load(Snapshotter& snapshotter, const std::string& prefix, std::chrono::microseconds pause) {
  CallContext call;
  int made = 0;
  // Each begins at its time, however long the one before took, as long as that has ended.
  for (Clock::time_point next = Clock::now(); !InputEnded(); next += pause) {
    std::this_thread::sleep_until(next);
    const Clock::time_point begin = Clock::now();
    STRATA_RETURN_IF_ERROR(
        snapshotter.Prepare(call, prefix + "-" + std::to_string(made++), "", {}).status());
    (void)std::printf("%.6f %.6f\n", Seconds(begin.time_since_epoch()),
                      Seconds(Clock::now() - begin));
  }
  for (int i = 0; i < made; ++i) {
    STRATA_RETURN_IF_ERROR(snapshotter.Remove(call, prefix + "-" + std::to_string(i)));
  }
  return OkStatus();
}

Status Run(const std::vector<std::string>& words) {
  if (words.size() < 2) {
    return MakeStatus(StatusCode::kInvalidArgument, kUsage);
  }
  STRATA_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                          Dial(words[0], {.wait_for_ready = kLimit}));
  const std::unique_ptr<Snapshotter> snapshotter = NewProxySnapshotter(
      std::move(channel), {.snapshotter_name = "bench", .call_timeout = kLimit});
  CallContext call;
  (void)snapshotter->Stat(call, "nothing");  // the connection is made
  const std::string& verb = words[1];
  if (verb == "prepare" && words.size() == 3) {
    return Prepare(*snapshotter, words[2]);
  }
  if (verb == "commit" && words.size() == 4) {
    return Timed([&] { return snapshotter->Commit(call, words[2], words[3], {}); });
  }
  if (verb == "remove" && words.size() == 3) {
    return Timed([&] { return snapshotter->Remove(call, words[2]); });
  }
  if (verb == "cleanup" && words.size() == 2) {
    return Timed([&] { return snapshotter->Cleanup(call); });
  }
  if (verb == "usage" && words.size() == 4) {
    return MeasureUsage(*snapshotter, words[2], std::atoi(words[3].c_str()));
  }
  if (verb == "load" && words.size() == 4) {
    return Load(*snapshotter, words[2], std::chrono::microseconds(std::atoi(words[3].c_str())));
  }
  return MakeStatus(StatusCode::kInvalidArgument, kUsage);
}

}  // namespace
}  // namespace strata

int main(int argc, char** argv) {
  const strata::Status status = strata::Run(std::vector<std::string>(argv + 1, argv + argc));
  if (!status.ok()) {
    std::cerr << "strata-bench-calls: " << status << '\n';
    return 1;
  }
  return 0;
}
