// SPDX-License-Identifier: Apache-2.0
#include "client/worker/progress.h"

#include <sys/ioctl.h>

#include <algorithm>

#include "client/stratactl/table.h"
#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

constexpr std::chrono::milliseconds kFrame{100};
constexpr size_t kShownDigest = 19;  // "sha256:" and 12 digits
constexpr size_t kBar = 24;
constexpr size_t kDefaultWidth = 80;

std::string_view NameOf(PullProgress::Step step) {
  switch (step) {
    case PullProgress::Step::kResolving:
      return "resolving";
    case PullProgress::Step::kWaiting:
      return "waiting";
    case PullProgress::Step::kFetching:
      return "fetching";
    case PullProgress::Step::kApplying:
      return "applying";
    case PullProgress::Step::kDone:
      return "done";
    case PullProgress::Step::kPresent:
      return "present";
    case PullProgress::Step::kLazy:
      return "lazy";
  }
  return "";
}

size_t WidthOf(int fd) {
  winsize size{};
  return ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kDefaultWidth;
}

}  // namespace

std::string ProgressLine(std::string_view blob, PullProgress::Step step, uint64_t done,
                         uint64_t total, size_t width) {
  std::string line = blob.empty() ? "image" : Printable(blob.substr(0, kShownDigest));
  line.resize(std::max(line.size(), kShownDigest), ' ');
  line += "  " + std::string(NameOf(step));
  const bool moves = step == PullProgress::Step::kFetching || step == PullProgress::Step::kApplying;
  if (moves) {
    line.resize(std::max(line.size(), kShownDigest + 13), ' ');
    if (total > 0) {
      const auto part = static_cast<double>(std::min(done, total)) / static_cast<double>(total);
      const auto filled = static_cast<size_t>(part * kBar);
      line += "[" + std::string(filled, '#') + std::string(kBar - filled, ' ') + "]  " +
              ShowBytes(done) + " / " + ShowBytes(total);
    } else if (done > 0) {
      line += ShowBytes(done);
    }
  }
  line.resize(std::min(line.size(), width));
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

void TerminalProgress::OnStep(std::string_view blob, Step step, uint64_t done, uint64_t total) {
  auto row = std::find_if(rows_.begin(), rows_.end(),
                          [blob](const Row& known) { return known.blob == blob; });
  const bool fresh = row == rows_.end();
  if (fresh) {
    row = rows_.insert(rows_.end(), {.blob = std::string(blob)});
  }
  const bool changed = fresh || row->step != step;
  *row = {.blob = row->blob, .step = step, .done = done, .total = total};
  if (!is_terminal_) {
    if (changed && step != Step::kWaiting) {
      // Not to be seen is no reason to stop.
      (void)WriteAll(fd_, ProgressLine(blob, step, 0, 0, std::string::npos) + "\n", "progress");
    }
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (changed || now - last_draw_ >= kFrame) {
    last_draw_ = now;
    Draw();
  }
}

void TerminalProgress::Draw() {
  const size_t width = WidthOf(fd_) - 1;
  std::string frame = drawn_ == 0 ? "" : "\x1b[" + std::to_string(drawn_) + "A";
  for (const Row& row : rows_) {
    frame += "\r\x1b[K" + ProgressLine(row.blob, row.step, row.done, row.total, width) + "\n";
  }
  drawn_ = rows_.size();
  (void)WriteAll(fd_, frame, "progress");  // as above
}

void TerminalProgress::Finish() {
  if (is_terminal_ && !rows_.empty()) {
    Draw();
  }
  rows_.clear();
  drawn_ = 0;
}

}  // namespace strata
