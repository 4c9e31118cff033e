// SPDX-License-Identifier: Apache-2.0
//
// Plugins of the Container Network Interface as shell scripts, and what they were asked. For tests
// only.
#pragma once

#include <string>
#include <vector>

#include "tests/support/temp_dir.h"

namespace strata::testing {

// A folder of plugins that note each call, then run what the test wrote.
class FakePlugins {
 public:
  FakePlugins();

  // `script` has the variables of the protocol, and $input: the configuration.
  void Add(const std::string& name, const std::string& script);

  [[nodiscard]] const std::string& folder() const { return dir_.path(); }
  // A file for scripts to write to.
  [[nodiscard]] std::string Note(const std::string& name) const { return dir_.Join(name); }

  // "ADD name", in the order of the calls.
  [[nodiscard]] std::vector<std::string> Calls() const;
  // The environment (as NAME=VALUE lines) and the configuration of the last such call.
  [[nodiscard]] std::string EnvironmentOf(const std::string& command,
                                          const std::string& name) const;
  [[nodiscard]] std::string InputOf(const std::string& command, const std::string& name) const;

 private:
  TempDir dir_;
};

std::string ReadText(const std::string& path);

}  // namespace strata::testing
