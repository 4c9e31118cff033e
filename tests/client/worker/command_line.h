// SPDX-License-Identifier: Apache-2.0
//
// A worker's command line in a world of the test's own. For tests only.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "client/worker/flags.h"

namespace strata::testing {

struct World {
  std::map<std::string, std::string> files;  // by path
  std::map<std::string, std::string> variables;
  bool in_user_namespace = false;
  uid_t effective_user = 0;

  [[nodiscard]] WorkerEnvironment Environment() const;
};

inline constexpr const char* kConfigPath = "/etc/buildkit/buildkitd.toml";

// The configuration by flags, with the verb "config" behind them, and a file at the default path
// (none when it is empty).
StatusOr<WorkerConfig> ReadConfig(const std::vector<std::string>& flags,
                                  const std::string& toml = "", World world = {});

}  // namespace strata::testing
