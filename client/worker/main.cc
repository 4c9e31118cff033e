// SPDX-License-Identifier: Apache-2.0
//
// strata-worker: a thin OCI worker on any snapshotter.
#include <iostream>
#include <string>
#include <vector>

#include "client/worker/commands.h"

int main(int argc, char** argv) {
  return strata::StrataWorker(strata::WorkerEnvironment::Real(),
                              std::vector<std::string>(argv + 1, argv + argc), std::cout,
                              std::cerr);
}
