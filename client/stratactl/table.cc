// SPDX-License-Identifier: Apache-2.0
#include "client/stratactl/table.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <utility>

namespace strata {
namespace {

// The least that a column is shortened to: what is shorter tells nothing.
constexpr size_t kLeastWidth = 12;
constexpr size_t kGap = 2;

bool Continues(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

// Characters of valid UTF-8, each of which is taken for one column.
size_t Width(std::string_view text) {
  return text.size() - static_cast<size_t>(std::count_if(text.begin(), text.end(), Continues));
}

// The bytes of the first `count` characters.
size_t BytesOfFirst(std::string_view text, size_t count) {
  size_t at = 0;
  while (at < text.size() && (count > 0 || Continues(text[at]))) {
    count -= Continues(text[at]) ? 0 : 1;
    ++at;
  }
  return at;
}

// The character that begins at `at`: its length in bytes, and its number; length 0: none does.
std::pair<size_t, uint32_t> CharacterAt(std::string_view text, size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  const size_t length = first < 0x80   ? 1
                        : first < 0xC2 ? 0
                        : first < 0xE0 ? 2
                        : first < 0xF0 ? 3
                        : first < 0xF5 ? 4
                                       : 0;
  if (length == 0 || at + length > text.size()) {
    return {0, 0};
  }
  constexpr std::array<uint32_t, 5> kFirstBits = {0, 0x7F, 0x1F, 0x0F, 0x07};
  uint32_t number = first & kFirstBits[length];
  for (size_t i = 1; i < length; ++i) {
    if (!Continues(text[at + i])) {
      return {0, 0};
    }
    number = (number << 6) | (static_cast<unsigned char>(text[at + i]) & 0x3FU);
  }
  constexpr std::array<uint32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  return number < kLeast[length] ? std::pair<size_t, uint32_t>{0, 0} : std::pair{length, number};
}

// Unicode's classes Cc, Zl, Zp, the marks that turn the direction of writing, and surrogates.
bool IsHarmless(uint32_t character) {
  const auto within = [character](uint32_t first, uint32_t last) {
    return character >= first && character <= last;
  };
  return !within(0, 0x1F) && !within(0x7F, 0x9F) && character != 0x61C && !within(0x200B, 0x200F) &&
         !within(0x2028, 0x202E) && !within(0x2060, 0x206F) && !within(0xD800, 0xDFFF) &&
         character != 0xFEFF;
}

void PrintRow(std::ostream& out, const std::vector<std::string>& cells,
              const std::vector<size_t>& widths) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) {
    line += cells[i];
    if (i + 1 < cells.size()) {
      line.append(widths[i] - Width(cells[i]) + kGap, ' ');
    }
  }
  line.erase(line.find_last_not_of(' ') + 1);
  out << line << "\n";
}

// Takes a character of the widest column at a time until the lines fit, as far as that goes.
void Fit(std::vector<size_t>& widths, size_t columns) {
  size_t total = kGap * (widths.size() - 1);
  for (const size_t width : widths) {
    total += width;
  }
  while (total > columns) {
    const auto widest = std::max_element(widths.begin(), widths.end());
    if (*widest <= kLeastWidth) {
      return;
    }
    --*widest;
    --total;
  }
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto [length, number] = CharacterAt(text, at);
    if (length == 0 || !IsHarmless(number)) {
      out += '?';
    } else {
      out += text.substr(at, length);
    }
    at += std::max<size_t>(length, 1);
  }
  return out;
}

std::string Shortened(std::string_view text, size_t width) {
  constexpr std::string_view kDots = "...";
  const size_t now = Width(text);
  if (now <= width || width <= kDots.size()) {
    return std::string(text);
  }
  const size_t kept = width - kDots.size();
  const size_t tail = kept / 2;
  std::string out(text.substr(0, BytesOfFirst(text, kept - tail)));
  out += kDots;
  out += text.substr(BytesOfFirst(text, now - tail));
  return out;
}

void PrintTable(std::ostream& out, const std::vector<std::string>& header,
                const std::vector<std::vector<std::string>>& rows, size_t columns) {
  std::vector<std::vector<std::string>> lines = {header};
  lines.insert(lines.end(), rows.begin(), rows.end());
  std::vector<size_t> widths(header.size());
  for (std::vector<std::string>& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      line[i] = Printable(line[i]);
      widths[i] = std::max(widths[i], Width(line[i]));
    }
  }
  if (columns > 0) {
    Fit(widths, columns);
  }
  for (std::vector<std::string>& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      line[i] = Shortened(line[i], widths[i]);
    }
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
  constexpr uint64_t kDay = 24 * kHour;
  if (seconds < kDay) {
    return std::to_string(seconds / kHour) + "h" + std::to_string(seconds % kHour / kMinute) + "m";
  }
  return std::to_string(seconds / kDay) + "d" + std::to_string(seconds % kDay / kHour) + "h";
}

}  // namespace strata
