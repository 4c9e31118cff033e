// SPDX-License-Identifier: Apache-2.0
//
// The verbs of strata-worker. Each prints what it has to say and returns the exit code; an error is
// for its caller to print. One at a time in a process.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "client/worker/config.h"
#include "client/worker/flags.h"
#include "snapshotters/base/status.h"

namespace strata {

struct VerbCall {
  const WorkerConfig& config;
  const WorkerEnvironment& environment;
  const std::vector<std::string>& arguments;
  std::ostream& out;
};

StatusOr<int> ConfigVerb(const VerbCall& call);
StatusOr<int> InfoVerb(const VerbCall& call);

StatusOr<int> PullVerb(const VerbCall& call);
StatusOr<int> ImagesVerb(const VerbCall& call);
StatusOr<int> RmiVerb(const VerbCall& call);

StatusOr<int> RunVerb(const VerbCall& call);
StatusOr<int> ExecVerb(const VerbCall& call);
StatusOr<int> PsVerb(const VerbCall& call);
StatusOr<int> KillVerb(const VerbCall& call);

StatusOr<int> PruneVerb(const VerbCall& call);
StatusOr<int> DuVerb(const VerbCall& call);

// The program; without its own name in `arguments`.
int StrataWorker(const WorkerEnvironment& environment, const std::vector<std::string>& arguments,
                 std::ostream& out, std::ostream& err);

// Exit codes besides those of the processes that are run.
inline constexpr int kWorkerOk = 0;
inline constexpr int kWorkerFailure = 1;
inline constexpr int kWorkerUsage = 2;
// run and exec: of our own failures, whatever they are, so that a process' code is only its own.
inline constexpr int kWorkerRunFailure = 125;

}  // namespace strata
