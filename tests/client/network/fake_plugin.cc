// SPDX-License-Identifier: Apache-2.0
#include "tests/client/network/fake_plugin.h"

#include <sys/stat.h>

#include <fstream>
#include <sstream>

#include "snapshotters/base/check.h"

namespace strata::testing {

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

FakePlugins::FakePlugins() = default;

void FakePlugins::Add(const std::string& name, const std::string& script) {
  const std::string path = dir_.Join(name);
  // Beside each other: a file that is open for writing cannot be run.
  {
    std::ofstream file(path);
    file << "#!/bin/sh\n"
         << "cd '" << dir_.path() << "'\n"
         << "input=$(cat)\n"
         << "printf '%s' \"$input\" > \"$CNI_COMMAND." << name << ".input\"\n"
         << "env > \"$CNI_COMMAND." << name << ".env\"\n"
         << "echo \"$CNI_COMMAND " << name << "\" >> calls\n"
         << script << "\n";
  }
  STRATA_CHECK(::chmod(path.c_str(), 0755) == 0);
}

std::vector<std::string> FakePlugins::Calls() const {
  std::ifstream file(dir_.Join("calls"));
  std::vector<std::string> calls;
  for (std::string line; std::getline(file, line);) {
    calls.push_back(line);
  }
  return calls;
}

std::string FakePlugins::EnvironmentOf(const std::string& command, const std::string& name) const {
  return ReadText(dir_.Join(command + "." + name + ".env"));
}

std::string FakePlugins::InputOf(const std::string& command, const std::string& name) const {
  return ReadText(dir_.Join(command + "." + name + ".input"));
}

}  // namespace strata::testing
