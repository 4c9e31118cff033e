// SPDX-License-Identifier: Apache-2.0
//
// The effective configuration as a buildkitd.toml. Pure; safe from any thread.
#pragma once

#include <string>

#include "client/worker/config.h"

namespace strata {

// Every value, with where it comes from behind it. What it prints parses to the same configuration.
std::string PrintConfig(const WorkerConfig& config);

}  // namespace strata
