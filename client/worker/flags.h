// SPDX-License-Identifier: Apache-2.0
//
// The worker's command line: the flags of the seed (worker-parity 1.2), a verb, and what is the
// verb's. Pure but for the file that --config names; safe from any thread.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "client/worker/config.h"
#include "snapshotters/base/status.h"

namespace strata {

struct WorkerCommandLine {
  WorkerConfig config;
  std::string verb;
  std::vector<std::string> arguments;  // behind the verb
};

// --help, --version: print it and end well.
struct WorkerUsage {
  std::string text;
};

// Without the program's name. InvalidArgument: the flag or the key, and what was expected.
StatusOr<std::variant<WorkerCommandLine, WorkerUsage>> ReadWorkerCommandLine(
    const WorkerEnvironment& environment, const std::vector<std::string>& arguments);

// For CLI11: from the last to the first, and with a mark where "--name=" gives an empty value,
// which FromCli takes off again.
std::vector<std::string> ForCli(const std::vector<std::string>& arguments);
std::string FromCli(std::string text);

}  // namespace strata
