// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/toc_fields.h"

#include <algorithm>
#include <array>

namespace strata {
namespace {

constexpr size_t kLongestPrinted = 200;
constexpr uint8_t kNoBase64 = 0xff;

constexpr std::array<uint8_t, 256> MakeBase64Table() {
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<uint8_t, 256> table = {};
  table.fill(kNoBase64);
  for (size_t i = 0; i < kAlphabet.size(); ++i) {
    table[static_cast<uint8_t>(kAlphabet[i])] = static_cast<uint8_t>(i);
  }
  return table;
}
constexpr std::array<uint8_t, 256> kBase64Table = MakeBase64Table();

// Takes numbers and separators off the front of a text; the first failure sticks.
class TimeScanner {
 public:
  explicit TimeScanner(std::string_view text) : rest_(text) {}

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] std::string_view rest() const { return rest_; }

  // `digits` digits that make a number in [low, high].
  int64_t Number(size_t digits, int64_t low, int64_t high) {
    int64_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      if (rest_.empty() || rest_.front() < '0' || rest_.front() > '9') {
        ok_ = false;
        return 0;
      }
      value = value * 10 + (rest_.front() - '0');
      rest_.remove_prefix(1);
    }
    ok_ = ok_ && value >= low && value <= high;
    return value;
  }

  void Expect(std::string_view alternatives) {
    if (rest_.empty() || alternatives.find(rest_.front()) == std::string_view::npos) {
      ok_ = false;
      return;
    }
    rest_.remove_prefix(1);
  }

  // ".123", if there is one.
  uint32_t Fraction() {
    if (!rest_.starts_with('.')) {
      return 0;
    }
    rest_.remove_prefix(1);
    uint32_t value = 0;
    uint32_t unit = 100'000'000;
    const size_t before = rest_.size();
    while (!rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9') {
      value += static_cast<uint32_t>(rest_.front() - '0') * unit;
      unit /= 10;
      rest_.remove_prefix(1);
    }
    ok_ = ok_ && rest_.size() < before;
    return value;
  }

  // "Z" or "+01:00"; seconds east of Greenwich.
  int64_t Zone() {
    if (rest_.starts_with('Z') || rest_.starts_with('z')) {
      rest_.remove_prefix(1);
      return 0;
    }
    const bool west = rest_.starts_with('-');
    Expect("+-");
    const int64_t hours = Number(2, 0, 23);
    Expect(":");
    const int64_t minutes = Number(2, 0, 59);
    const int64_t seconds = hours * 3600 + minutes * 60;
    return west ? -seconds : seconds;
  }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

bool IsLeapYear(int64_t year) {
  return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

int64_t DaysInMonth(int64_t year, int64_t month) {
  constexpr std::array<int64_t, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return kDays[static_cast<size_t>(month - 1)] + (month == 2 && IsLeapYear(year) ? 1 : 0);
}

// Days since 1970-01-01 in the proleptic Gregorian calendar; year in [0, 9999]. Years are counted
// from March, so that the leap day is the last of one.
int64_t DaysSinceEpoch(int64_t year, int64_t month, int64_t day) {
  const int64_t shifted_year = year - (month <= 2 ? 1 : 0) + 400;
  const int64_t era = shifted_year / 400;
  const int64_t year_of_era = shifted_year % 400;
  const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  const int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  constexpr int64_t kDaysPerEra = 146'097;
  constexpr int64_t kEpochDay = 719'468 + kDaysPerEra;
  return era * kDaysPerEra + day_of_era - kEpochDay;
}

Status BadName(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, why);
}

}  // namespace

std::optional<TocTime> ParseRfc3339(std::string_view text) {
  TimeScanner scanner(text);
  const int64_t year = scanner.Number(4, 0, 9999);
  scanner.Expect("-");
  const int64_t month = scanner.Number(2, 1, 12);
  scanner.Expect("-");
  const int64_t day = scanner.Number(2, 1, 31);
  scanner.Expect("Tt");
  const int64_t hour = scanner.Number(2, 0, 23);
  scanner.Expect(":");
  const int64_t minute = scanner.Number(2, 0, 59);
  scanner.Expect(":");
  const int64_t second = scanner.Number(2, 0, 59);
  const uint32_t nanoseconds = scanner.Fraction();
  const int64_t zone = scanner.Zone();
  if (!scanner.ok() || !scanner.rest().empty() || day > DaysInMonth(year, month)) {
    return std::nullopt;
  }
  const int64_t of_day = hour * 3600 + minute * 60 + second - zone;
  return TocTime{.seconds = DaysSinceEpoch(year, month, day) * 86'400 + of_day,
                 .nanoseconds = nanoseconds};
}

bool AppendBase64(std::string_view text, std::string& out) {
  if (text.size() % 4 != 0) {
    return false;
  }
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  text.remove_suffix(padding);
  uint32_t bits = 0;
  int count = 0;
  for (const char symbol : text) {
    const uint8_t value = kBase64Table[static_cast<uint8_t>(symbol)];
    if (value == kNoBase64) {
      return false;
    }
    bits = (bits << 6 | value) & 0xffff;
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>(bits >> count & 0xff);
    }
  }
  return true;
}

StatusOr<std::string_view> CleanName(std::string_view name, size_t most_bytes,
                                     size_t most_component_bytes, std::string& scratch) {
  if (name.size() > most_bytes) {
    return BadName("the name is longer than " + std::to_string(most_bytes) + " bytes");
  }
  if (name.find('\0') != std::string_view::npos) {
    return BadName("the name has a NUL");
  }
  scratch.clear();
  bool first = true;
  for (size_t at = 0; at < name.size();) {
    const size_t end = std::min(name.find('/', at), name.size());
    const std::string_view component = name.substr(at, end - at);
    at = end + 1;
    if (component.empty() || component == ".") {
      continue;
    }
    if (component == "..") {
      return BadName("the name has '..'");
    }
    if (component.size() > most_component_bytes) {
      return BadName("a part of the name is longer than " + std::to_string(most_component_bytes) +
                     " bytes");
    }
    if (!first) {
      scratch += '/';
    }
    scratch += component;
    first = false;
  }
  return std::string_view(scratch);
}

std::string Printable(std::string_view name) {
  std::string text(name.substr(0, kLongestPrinted));
  for (char& c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x20 || byte == 0x7f) {
      c = '?';
    }
  }
  return name.size() > kLongestPrinted ? text + "..." : text;
}

}  // namespace strata
