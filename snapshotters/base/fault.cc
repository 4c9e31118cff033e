// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/fault.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_split.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/base/unique_fd.h"

namespace strata {
namespace {

// Never destroyed: threads may pass points while the process exits.
FaultPoints::Handler& HandlerSlot() {
  static auto& handler = *new FaultPoints::Handler;
  return handler;
}

// What STRATA_FAULT and STRATA_FAULT_TRACE ask for.
struct EnvironmentFault {
  std::string name;
  int error = 0;  // 0: SIGKILL
  std::atomic<int> left{0};
  UniqueFd trace;

  Status Pass(std::string_view point) {
    if (trace.valid()) {
      const std::string line = std::string(point) + "\n";
      if (::write(trace.get(), line.data(), line.size()) < 0) {
        return ErrnoStatus(errno, "write the fault trace");
      }
    }
    if (name.empty() || (name != "*" && name != point)) {
      return OkStatus();
    }
    if (left.fetch_sub(1) != 1) {
      return OkStatus();
    }
    if (error != 0) {
      return ErrnoStatus(error, "fault point '" + std::string(point) + "'");
    }
    (void)::kill(::getpid(), SIGKILL);  // cannot fail for our own pid
    for (;;) {
      (void)::pause();  // until the signal arrives
    }
  }
};

}  // namespace

std::atomic<bool> FaultPoints::armed_{false};

void FaultPoints::Arm(Handler handler) {
  const bool armed = static_cast<bool>(handler);
  HandlerSlot() = std::move(handler);
  armed_.store(armed, std::memory_order_release);
}

Status FaultPoints::ArmFromEnvironment() {
  const char* spec = std::getenv("STRATA_FAULT");
  const char* trace = std::getenv("STRATA_FAULT_TRACE");
  if (spec == nullptr && trace == nullptr) {
    return OkStatus();
  }
  auto fault = std::make_shared<EnvironmentFault>();
  if (spec != nullptr) {
    const std::vector<std::string> parts = absl::StrSplit(spec, ':');
    int count = 0;
    const bool good =
        (parts.size() == 2 || parts.size() == 3) && !parts[0].empty() &&
        absl::SimpleAtoi(parts[1], &count) && count > 0 &&
        (parts.size() == 2 || (absl::SimpleAtoi(parts[2], &fault->error) && fault->error > 0));
    if (!good) {
      return MakeStatus(StatusCode::kInvalidArgument, "STRATA_FAULT='" + std::string(spec) +
                                                          "': expected NAME:N or NAME:N:ERRNO");
    }
    fault->name = parts[0];
    fault->left = count;
  }
  if (trace != nullptr) {
    fault->trace = UniqueFd(::open(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    if (!fault->trace.valid()) {
      return ErrnoStatus(errno, "open '" + std::string(trace) + "'");
    }
  }
  Arm([fault](std::string_view point) { return fault->Pass(point); });
  return OkStatus();
}

Status FaultPoints::ReachSlow(std::string_view point) {
  const Handler& handler = HandlerSlot();
  return handler ? handler(point) : OkStatus();
}

}  // namespace strata
