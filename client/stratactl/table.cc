// SPDX-License-Identifier: Apache-2.0
#include "client/stratactl/table.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>

namespace strata {
namespace {

void PrintRow(std::ostream& out, const std::vector<std::string>& cells,
              const std::vector<size_t>& widths) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) {
    line += cells[i];
    if (i + 1 < cells.size()) {
      line.append(widths[i] - cells[i].size() + 2, ' ');
    }
  }
  line.erase(line.find_last_not_of(' ') + 1);
  out << line << "\n";
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string out(text);
  std::replace_if(
      out.begin(), out.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return out;
}

void PrintTable(std::ostream& out, const std::vector<std::string>& header,
                const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::vector<std::string>> lines = {header};
  lines.insert(lines.end(), rows.begin(), rows.end());
  std::vector<size_t> widths(header.size());
  for (std::vector<std::string>& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      line[i] = Printable(line[i]);
      widths[i] = std::max(widths[i], line[i].size());
    }
  }
  for (const std::vector<std::string>& line : lines) {
    PrintRow(out, line, widths);
  }
}

std::string ShowBytes(uint64_t bytes) {
  constexpr uint64_t kStep = 1024;
  constexpr std::array<const char*, 5> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < kStep) {
    return std::to_string(bytes) + " B";
  }
  auto amount = static_cast<double>(bytes) / kStep;
  size_t unit = 0;
  while (amount >= kStep && unit + 1 < kUnits.size()) {
    amount /= kStep;
    ++unit;
  }
  char text[32];
  (void)std::snprintf(text, sizeof(text), "%.1f %s", amount, kUnits[unit]);  // fits
  return text;
}

std::string ShowSeconds(uint64_t seconds) {
  constexpr uint64_t kMinute = 60;
  constexpr uint64_t kHour = 60 * kMinute;
  if (seconds < kMinute) {
    return std::to_string(seconds) + "s";
  }
  if (seconds < kHour) {
    return std::to_string(seconds / kMinute) + "m" + std::to_string(seconds % kMinute) + "s";
  }
  return std::to_string(seconds / kHour) + "h" + std::to_string(seconds % kHour / kMinute) + "m";
}

}  // namespace strata
