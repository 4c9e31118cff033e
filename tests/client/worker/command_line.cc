// SPDX-License-Identifier: Apache-2.0
#include "tests/client/worker/command_line.h"

#include <utility>

namespace strata::testing {

WorkerEnvironment World::Environment() const {
  return {
      .variable = [variables = variables](const char* name) -> std::optional<std::string> {
        const auto found = variables.find(name);
        return found == variables.end() ? std::nullopt : std::optional<std::string>(found->second);
      },
      .read_file = [files = files](const std::string& path) -> StatusOr<std::string> {
        const auto found = files.find(path);
        return found == files.end()
                   ? StatusOr<std::string>(MakeStatus(StatusCode::kNotFound, "open '" + path + "'"))
                   : StatusOr<std::string>(found->second);
      },
      .in_user_namespace = in_user_namespace,
      .effective_user = effective_user,
  };
}

StatusOr<WorkerConfig> ReadConfig(const std::vector<std::string>& flags, const std::string& toml,
                                  World world) {
  if (!toml.empty()) {
    world.files[kConfigPath] = toml;
  }
  std::vector<std::string> arguments = flags;
  arguments.emplace_back("config");
  STRATA_ASSIGN_OR_RETURN(auto read, ReadWorkerCommandLine(world.Environment(), arguments));
  return std::get<WorkerCommandLine>(std::move(read)).config;
}

}  // namespace strata::testing
