// SPDX-License-Identifier: Apache-2.0
//
// Where and how the commands of stratactl print. One thread at a time.
#pragma once

#include <chrono>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>

namespace strata {

// What the program's output goes to.
struct Terminal {
  size_t columns = 0;           // 0: no terminal, lines may be as long as they are
  bool shows_progress = false;  // standard error is one

  // By $COLUMNS, or the terminal itself.
  static Terminal Real();
};

struct Output {
  std::ostream& out;
  std::ostream& err;
  bool json = false;
  Terminal terminal;
};

// One value on a line, in ASCII: whatever a name holds, a terminal shows it harmlessly.
void PrintJson(std::ostream& out, const nlohmann::json& value);

// Says on standard error, about once a second, how far long work is.
class Progress {
 public:
  explicit Progress(const Output& output) : output_(output) {}

  void Tell(const std::string& text);

 private:
  const Output& output_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace strata
