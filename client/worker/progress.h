// SPDX-License-Identifier: Apache-2.0
//
// How far a pull is, for people: bars that move on a terminal, a line for each step otherwise.
// Safe from any thread, as PullProgress has it.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "client/image/pull.h"

namespace strata {

// One line of a bar, `width` columns at most: "sha256:0123456789ab  fetching  [####    ]  12
// MiB/...".
std::string ProgressLine(std::string_view blob, PullProgress::Step step, uint64_t done,
                         uint64_t total, size_t width);

class TerminalProgress final : public PullProgress {
 public:
  // Writes to `fd`, which stays the caller's.
  TerminalProgress(int fd, bool is_terminal) : fd_(fd), is_terminal_(is_terminal) {}
  ~TerminalProgress() override { Finish(); }
  TerminalProgress(const TerminalProgress&) = delete;
  TerminalProgress& operator=(const TerminalProgress&) = delete;

  void OnStep(std::string_view blob, Step step, uint64_t done, uint64_t total) override;
  // The bars as they are at the end; what is written next comes below them.
  void Finish();

 private:
  struct Row {
    std::string blob;
    Step step = Step::kWaiting;
    uint64_t done = 0;
    uint64_t total = 0;
  };

  void Draw();

  const int fd_;
  const bool is_terminal_;
  std::vector<Row> rows_;  // in the order in which they were heard of
  size_t drawn_ = 0;       // lines that the cursor is below of
  std::chrono::steady_clock::time_point last_draw_;
};

}  // namespace strata
