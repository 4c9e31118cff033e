// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/filter.h"

#include <re2/re2.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace strata {
namespace {

enum class Operator : uint8_t { kPresent, kEqual, kNotEqual, kMatches };

enum class Field : uint8_t { kAbsent, kName, kParent, kKind, kLabel };

constexpr size_t kMaxRegexBytes = size_t{1024} * 1024;

Field FieldNamed(std::string_view name) {
  if (name == "name") {
    return Field::kName;
  }
  if (name == "parent") {
    return Field::kParent;
  }
  if (name == "kind") {
    return Field::kKind;
  }
  return name == "labels" ? Field::kLabel : Field::kAbsent;
}

bool IsFieldCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool IsOperatorCharacter(char c) {
  return c == '=' || c == '!' || c == '~';
}

// What may start a value without quotes, provided that it can be in one at all.
bool StartsPlainValue(char c) {
  return !IsOperatorCharacter(c) && c != '.' && c != ',' && c != '/' && c != '|' && c != '"';
}

re2::StringPiece ToPiece(std::string_view text) {
  return {text.data(), text.size()};
}

// Bytes of `text` that `run` matches from its start.
size_t MatchedPrefix(const RE2& run, std::string_view text) {
  re2::StringPiece rest = ToPiece(text);
  return RE2::Consume(&rest, run) ? text.size() - rest.size() : 0;
}

// The classes of the two functions below come from RE2's tables of Unicode.

// White_Space, as Go's unicode.IsSpace.
size_t SpacePrefix(std::string_view text) {
  static const RE2& run = *new RE2(R"([\t\n\v\f\r\x{20}\x{85}\pZ]*)");
  return MatchedPrefix(run, text);
}

// Go takes what is graphic, which is less by the code points that its edition of Unicode does not
// know yet.
size_t PlainValuePrefix(std::string_view text) {
  static const RE2& run = *new RE2(R"([^\pC\pZ]*)");
  return MatchedPrefix(run, text.substr(0, text.find(',')));
}

void AppendUtf8(uint32_t rune, std::string& out) {
  const auto tail = [&out, rune](unsigned shift) {
    out += static_cast<char>(0x80 | ((rune >> shift) & 0x3f));
  };
  if (rune < 0x80) {
    out += static_cast<char>(rune);
  } else if (rune < 0x800) {
    out += static_cast<char>(0xc0 | (rune >> 6));
    tail(0);
  } else if (rune < 0x10000) {
    out += static_cast<char>(0xe0 | (rune >> 12));
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xf0 | (rune >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

// The value of `c` as a digit, or a number that no base has.
uint32_t DigitValue(char c) {
  constexpr uint32_t kNoDigit = 99;
  if (c >= '0' && c <= '9') {
    return static_cast<uint32_t>(c - '0');
  }
  if (c >= 'a' && c <= 'f') {
    return static_cast<uint32_t>(c - 'a' + 10);
  }
  if (c >= 'A' && c <= 'F') {
    return static_cast<uint32_t>(c - 'A' + 10);
  }
  return kNoDigit;
}

// Where the first byte is that no rune of `text` has.
size_t BrokenUtf8At(std::string_view text) {
  constexpr size_t kLongestRune = 4;
  size_t offset = 0;
  while (offset < text.size()) {
    size_t length = 1;
    while (length <= kLongestRune && !IsValidUtf8(text.substr(offset, length))) {
      ++length;
    }
    if (length > kLongestRune) {
      break;
    }
    offset += length;
  }
  return offset;
}

Status TooMany(std::string_view what, size_t limit) {
  return MakeStatus(StatusCode::kInvalidArgument,
                    "filters: expected at most " + std::to_string(limit) + " " + std::string(what));
}

}  // namespace

struct Filter::Selector {
  Field field = Field::kAbsent;
  std::string name;  // of the field
  Operator op = Operator::kPresent;
  std::string label;           // key, for Field::kLabel
  std::string value;           // operand
  std::unique_ptr<RE2> regex;  // for Operator::kMatches; null if `value` is no regular expression

  // The value of the field in `info`; nullopt if absent.
  [[nodiscard]] std::optional<std::string_view> ValueIn(const SnapshotInfo& info) const {
    switch (field) {
      case Field::kAbsent:
        return std::nullopt;
      case Field::kName:
        return info.name;
      case Field::kParent:
        return info.parent;
      case Field::kKind:
        return KindName(info.kind);
      case Field::kLabel:
        break;
    }
    const auto found = info.labels.find(label);
    if (found == info.labels.end()) {
      return std::nullopt;
    }
    return found->second;
  }

  [[nodiscard]] bool Matches(std::optional<std::string_view> actual) const {
    switch (op) {
      case Operator::kPresent:
        return actual.has_value();
      case Operator::kEqual:
        return actual == value;
      case Operator::kNotEqual:
        return actual.value_or("") != value;
      case Operator::kMatches:
        break;
    }
    return regex != nullptr && RE2::PartialMatch(ToPiece(actual.value_or("")), *regex);
  }

  // False when the compiled form needs more than `bytes`.
  [[nodiscard]] bool Compile(size_t bytes) {
    RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(static_cast<int64_t>(bytes));
    regex = std::make_unique<RE2>(ToPiece(value), options);
    if (regex->ok()) {
      return true;
    }
    const bool too_large = regex->error_code() == RE2::ErrorPatternTooLarge;
    regex.reset();
    return !too_large;
  }
};

// One text, from left to right. Each function takes what it is named for, after spaces where they
// are allowed, and leaves `at_` behind it.
class Filter::Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  StatusOr<Conjunction> Parse() {
    if (text_.size() > kMaxFilterBytes) {
      return Expected(0, "at most " + std::to_string(kMaxFilterBytes) + " bytes");
    }
    if (!IsValidUtf8(text_)) {
      return Expected(BrokenUtf8At(text_), "valid UTF-8");
    }
    Conjunction selectors;
    while (true) {
      STRATA_ASSIGN_OR_RETURN(Selector selector, TakeSelector());
      selectors.push_back(std::move(selector));
      if (AtEnd()) {
        return selectors;
      }
      if (text_[at_] != ',') {
        return Expected(at_, "',' or the end");
      }
      if (selectors.size() == kMaxFilterSelectors) {
        return TooMany("selectors", kMaxFilterSelectors);
      }
      ++at_;
    }
  }

 private:
  StatusOr<Selector> TakeSelector() {
    Selector selector;
    STRATA_ASSIGN_OR_RETURN(selector.name, TakeField());
    selector.field = FieldNamed(selector.name);
    // What follows name, parent and kind is ignored, as in containerd.
    for (bool first = true; !AtEnd() && text_[at_] == '.'; first = false) {
      ++at_;
      STRATA_ASSIGN_OR_RETURN(const std::string part, TakeField());
      if (!first) {
        selector.label += '.';
      }
      selector.label += part;
    }
    if (AtEnd() || text_[at_] == ',') {
      return selector;
    }
    STRATA_ASSIGN_OR_RETURN(selector.op, TakeOperator());
    STRATA_ASSIGN_OR_RETURN(selector.value, TakeValue(selector.op));
    return selector;
  }

  StatusOr<std::string> TakeField() {
    SkipSpaces();
    if (!AtEnd() && text_[at_] == '"') {
      return TakeQuoted();
    }
    const size_t start = at_;
    while (!AtEnd() && IsFieldCharacter(text_[at_])) {
      ++at_;
    }
    if (at_ == start) {
      return Expected(at_, "a field: letters, digits and '_', or \"quoted\"");
    }
    return std::string(text_.substr(start, at_ - start));
  }

  StatusOr<Operator> TakeOperator() {
    SkipSpaces();
    const size_t start = at_;
    while (!AtEnd() && IsOperatorCharacter(text_[at_])) {
      ++at_;
    }
    const std::string_view word = text_.substr(start, at_ - start);
    if (word == "==") {
      return Operator::kEqual;
    }
    if (word == "!=") {
      return Operator::kNotEqual;
    }
    if (word == "~=") {
      return Operator::kMatches;
    }
    return Expected(start, "an operator: ==, != or ~=");
  }

  StatusOr<std::string> TakeValue(Operator op) {
    SkipSpaces();
    const char first = AtEnd() ? '\0' : text_[at_];
    if (first == '"' || (op == Operator::kMatches && (first == '/' || first == '|'))) {
      return TakeQuoted();
    }
    if (first == '/' || first == '|') {
      return Expected(at_, "a value; one with '/' or '|' in front must be \"quoted\"");
    }
    const size_t length = StartsPlainValue(first) ? PlainValuePrefix(text_.substr(at_)) : 0;
    if (length == 0) {
      return Expected(at_, "a value");
    }
    const size_t start = std::exchange(at_, at_ + length);
    return std::string(text_.substr(start, length));
  }

  // The character at `at_` is the quote.
  StatusOr<std::string> TakeQuoted() {
    const size_t start = at_;
    const char quote = text_[at_++];
    std::string content;
    while (!AtEnd() && text_[at_] != '\n') {
      const char c = text_[at_];
      if (c == quote) {
        ++at_;
        return content;
      }
      if (c == '\\') {
        STRATA_RETURN_IF_ERROR(TakeEscape(quote, content));
      } else {
        content += c;
        ++at_;
      }
    }
    return Expected(
        at_, std::string("the ") + quote + " that closes the one at byte " + std::to_string(start));
  }

  // The character at `at_` is the backslash.
  Status TakeEscape(char quote, std::string& out) {
    constexpr std::string_view kLetters = "abfnrtv\\";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\";
    const size_t start = at_++;
    const char c = AtEnd() ? '\0' : text_[at_];
    const size_t letter = kLetters.find(c);
    if (letter != std::string_view::npos || c == quote) {
      out += c == quote ? quote : kMeanings[letter];
      ++at_;
      return OkStatus();
    }
    if (DigitValue(c) < 8) {
      return TakeByte(start, /*base=*/8, /*digits=*/3, out);
    }
    ++at_;
    switch (c) {
      case 'x':
        return TakeByte(start, /*base=*/16, /*digits=*/2, out);
      case 'u':
        return TakeRune(start, /*digits=*/4, out);
      case 'U':
        return TakeRune(start, /*digits=*/8, out);
      default:
        return Expected(start, std::string("an escape: \\a \\b \\f \\n \\r \\t \\v \\\\ \\") +
                                   quote + " \\ooo \\xhh \\uhhhh \\Uhhhhhhhh");
    }
  }

  Status TakeByte(size_t start, uint32_t base, int digits, std::string& out) {
    STRATA_ASSIGN_OR_RETURN(const uint32_t byte, TakeNumber(start, base, digits));
    if (byte > UINT8_MAX) {
      return Expected(start, "a byte: \\000 to \\377");
    }
    out += static_cast<char>(byte);
    return OkStatus();
  }

  Status TakeRune(size_t start, int digits, std::string& out) {
    constexpr uint32_t kLastRune = 0x10ffff;
    constexpr uint32_t kReplacement = 0xfffd;
    STRATA_ASSIGN_OR_RETURN(const uint32_t rune, TakeNumber(start, /*base=*/16, digits));
    if (rune > kLastRune) {
      return Expected(start, "a rune up to \\U0010ffff");
    }
    const bool surrogate = rune >= 0xd800 && rune <= 0xdfff;
    AppendUtf8(surrogate ? kReplacement : rune, out);
    return OkStatus();
  }

  // Exactly `digits` digits; 8 of base 16 fit.
  StatusOr<uint32_t> TakeNumber(size_t start, uint32_t base, int digits) {
    uint32_t number = 0;
    for (int i = 0; i < digits; ++i) {
      const uint32_t digit = AtEnd() ? base : DigitValue(text_[at_]);
      if (digit >= base) {
        return Expected(start, "an escape with " + std::to_string(digits) + " digits of base " +
                                   std::to_string(base));
      }
      number = number * base + digit;
      ++at_;
    }
    return number;
  }

  void SkipSpaces() { at_ += SpacePrefix(text_.substr(at_)); }

  [[nodiscard]] bool AtEnd() const { return at_ == text_.size(); }

  [[nodiscard]] Status Expected(size_t offset, std::string_view what) const {
    return MakeStatus(StatusCode::kInvalidArgument, "filter " + ShowName(text_) + " at byte " +
                                                        std::to_string(offset) + ": expected " +
                                                        std::string(what));
  }

  const std::string_view text_;
  size_t at_ = 0;
};

Filter::Filter() = default;
Filter::~Filter() = default;
Filter::Filter(Filter&&) noexcept = default;
Filter& Filter::operator=(Filter&&) noexcept = default;

StatusOr<Filter> Filter::Parse(const std::vector<std::string>& texts) {
  if (texts.size() > kMaxFilters) {
    return TooMany("filters", kMaxFilters);
  }
  Filter filter;
  bool match_all = false;
  size_t selector_count = 0;
  std::vector<Selector*> regexes;
  filter.alternatives_.reserve(texts.size());
  for (const std::string& text : texts) {
    if (text.empty()) {
      match_all = true;
      continue;
    }
    STRATA_ASSIGN_OR_RETURN(Conjunction selectors, Parser(text).Parse());
    selector_count += selectors.size();
    if (selector_count > kMaxFilterSelectors) {
      return TooMany("selectors", kMaxFilterSelectors);
    }
    for (Selector& selector : filter.alternatives_.emplace_back(std::move(selectors))) {
      if (selector.op == Operator::kMatches) {
        regexes.push_back(&selector);
      }
    }
  }
  const size_t share =
      std::min(kMaxRegexBytes, kMaxFilterRegexBytes / std::max<size_t>(regexes.size(), 1));
  for (Selector* selector : regexes) {
    if (!selector->Compile(share)) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        "regular expression " + ShowName(selector->value) +
                            ": expected one that takes at most " + std::to_string(share) +
                            " bytes when compiled");
    }
  }
  if (match_all) {
    filter.alternatives_.clear();
  }
  return filter;
}

template <typename ValueOf>
bool Filter::AnyMatches(const ValueOf& value_of) const {
  const auto matches = [&value_of](const Selector& selector) {
    return selector.Matches(value_of(selector));
  };
  return matches_all() ||
         std::ranges::any_of(alternatives_, [&matches](const Conjunction& selectors) {
           return std::ranges::all_of(selectors, matches);
         });
}

bool Filter::Matches(const SnapshotInfo& info) const {
  return AnyMatches([&info](const Selector& selector) { return selector.ValueIn(info); });
}

bool Filter::MatchesFields(const FieldValues& values) const {
  return AnyMatches([&values](const Selector& selector) { return values(selector.name); });
}

bool Filter::matches_all() const {
  return alternatives_.empty();
}

}  // namespace strata
