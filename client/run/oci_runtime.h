// SPDX-License-Identifier: Apache-2.0
//
// OciRuntime: runc or crun by its command line. Every call but the two that run a process has a
// deadline. Safe from any thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "client/run/child_process.h"
#include "snapshotters/base/status.h"

namespace strata {

struct ContainerState {
  std::string status;  // "creating", "created", "running", "stopped"
  int pid = 0;
};

struct RuntimeStreams {
  int in = -1;
  int out = -1;
  int err = -1;
};

class OciRuntime {
 public:
  // `binary`: a path, a name that is looked up in PATH, or "" for the first of buildkit-runc and
  // runc. NotFound "failed to find X binary".
  static StatusOr<std::unique_ptr<OciRuntime>> Find(const std::string& binary);

  // Whether a container that has ended stays until Delete. runc's, since 1.1.? ; crun's since 1.15
  // (an older one removes it by itself).
  [[nodiscard]] bool keeps_containers() const { return keeps_containers_; }

  // The runtime in the foreground; it writes the process's pid to `pid_file` once that runs, and
  // what goes wrong to `log`.
  [[nodiscard]] StatusOr<ChildProcess> Run(const std::string& bundle, const std::string& id,
                                           const std::string& pid_file, const std::string& log,
                                           const RuntimeStreams& streams) const;
  // `process`: a file with the JSON of it.
  [[nodiscard]] StatusOr<ChildProcess> Exec(const std::string& id, const std::string& process,
                                            const std::string& pid_file, const std::string& log,
                                            const RuntimeStreams& streams) const;

  // `scratch` is a directory for the time of the call. NotFound when the runtime knows no such
  // container; FailedPrecondition when it does not run; DeadlineExceeded. Else the runtime's own
  // text.
  [[nodiscard]] StatusOr<ContainerState> State(const std::string& scratch,
                                               const std::string& id) const;
  [[nodiscard]] Status Kill(const std::string& scratch, const std::string& id, int signal,
                            std::chrono::milliseconds limit) const;
  // Also one that runs. One that is not there is no error.
  [[nodiscard]] Status Delete(const std::string& scratch, const std::string& id) const;

 private:
  OciRuntime(std::string program, bool keeps_containers)
      : program_(std::move(program)), keeps_containers_(keeps_containers) {}

  [[nodiscard]] StatusOr<std::string> Call(const std::string& scratch,
                                           std::vector<std::string> arguments,
                                           std::chrono::milliseconds limit) const;

  const std::string program_;
  const bool keeps_containers_;
};

// The last error in a runtime's log of JSON lines, "" when there is none.
std::string RuntimeError(std::string_view log);

}  // namespace strata
