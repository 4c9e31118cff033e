// SPDX-License-Identifier: Apache-2.0
//
// The arguments of one verb, read by CLI11. Used by one thread at a time.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

// --help: print it and end well.
struct VerbUsage {
  std::string text;
};

class VerbArguments {
 public:
  VerbArguments(const std::string& verb, const std::string& description);

  [[nodiscard]] CLI::App& app() { return app_; }
  // A flag that may be given several times, with one value each time.
  void AddTexts(const std::string& name, std::vector<std::string>* field, const std::string& help,
                const std::string& type);
  // What is behind the first word that is no flag goes to `field` as it is, that word first.
  void StopAtFirstWord(std::vector<std::string>* field) { rest_ = field; }

  // Fills the fields. InvalidArgument; a text to print instead.
  StatusOr<std::optional<VerbUsage>> Read(const std::vector<std::string>& arguments);

 private:
  CLI::App app_;
  std::vector<std::string>* rest_ = nullptr;
};

}  // namespace strata
