// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/snapshot.h"

#include <cstdint>
#include <cstring>

namespace strata {
namespace {

// Bytes of the UTF-8 sequence that `first` begins, 0: it begins none.
size_t LengthFrom(unsigned char first) {
  if (first < 0x80) {
    return 1;
  }
  if (first >= 0xc2 && first <= 0xdf) {
    return 2;
  }
  if (first >= 0xe0 && first <= 0xef) {
    return 3;
  }
  return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

// Length of the UTF-8 sequence that starts `text`, 0 when it is malformed (RFC 3629: shortest form
// only, no surrogates, at most U+10FFFF).
size_t SequenceLength(std::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const size_t length = LengthFrom(byte(0));
  if (length < 2) {
    return length;
  }
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size() || (byte(i) & 0xc0) != 0x80) {
      return 0;
    }
  }
  switch (byte(0)) {
    case 0xe0:  // else a shorter one would do
      return byte(1) >= 0xa0 ? length : 0;
    case 0xed:  // surrogates
      return byte(1) < 0xa0 ? length : 0;
    case 0xf0:  // as 0xe0
      return byte(1) >= 0x90 ? length : 0;
    case 0xf4:  // beyond U+10FFFF
      return byte(1) < 0x90 ? length : 0;
    default:
      return length;
  }
}

void AppendHex(unsigned char byte, std::string* out) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  *out += "\\x";
  *out += kDigits[byte >> 4];
  *out += kDigits[byte & 15];
}

}  // namespace

std::string_view KindName(Kind kind) {
  switch (kind) {
    case Kind::kView:
      return "view";
    case Kind::kActive:
      return "active";
    case Kind::kCommitted:
      return "committed";
  }
  return "unknown";
}

bool IsValidUtf8(std::string_view text) {
  constexpr uint64_t kNotAscii = 0x8080808080808080;
  while (!text.empty()) {
    // Most text is ASCII, and this runs for each call.
    uint64_t word = 0;
    if (text.size() >= sizeof(word)) {
      std::memcpy(&word, text.data(), sizeof(word));
      if ((word & kNotAscii) == 0) {
        text.remove_prefix(sizeof(word));
        continue;
      }
    }
    const size_t length = SequenceLength(text);
    if (length == 0) {
      return false;
    }
    text.remove_prefix(length);
  }
  return true;
}

Status ValidateName(std::string_view what, std::string_view name) {
  const auto subject = [what] { return "invalid " + std::string(what); };
  if (name.empty()) {
    return MakeStatus(StatusCode::kInvalidArgument, subject() + ": expected at least one byte");
  }
  if (name.size() > kMaxNameBytes) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      subject() + " " + ShowName(name) + ": " + std::to_string(name.size()) +
                          " bytes, expected at most " + std::to_string(kMaxNameBytes));
  }
  if (!IsValidUtf8(name) || name.find('\0') != std::string_view::npos) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      subject() + " " + ShowName(name) + ": expected UTF-8 without NUL bytes");
  }
  return OkStatus();
}

Status ValidateLabels(const Labels& labels) {
  size_t total = 0;
  for (const auto& [key, value] : labels) {
    if (key.empty()) {
      return MakeStatus(StatusCode::kInvalidArgument, "invalid label: expected a key");
    }
    if (!IsValidUtf8(key) || !IsValidUtf8(value)) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        "invalid label " + ShowName(key) + ": expected UTF-8");
    }
    total += key.size() + value.size();
  }
  if (total > kMaxLabelsBytes) {
    return MakeStatus(StatusCode::kInvalidArgument, "invalid labels: " + std::to_string(total) +
                                                        " bytes, expected at most " +
                                                        std::to_string(kMaxLabelsBytes));
  }
  return OkStatus();
}

std::string ShowName(std::string_view name) {
  constexpr size_t kShownBytes = 200;
  std::string shown = "'";
  std::string_view rest = name.substr(0, kShownBytes);
  while (!rest.empty()) {
    const auto first = static_cast<unsigned char>(rest.front());
    const size_t length = SequenceLength(rest);
    if (length == 0 || first < 0x20 || first == 0x7f) {
      AppendHex(first, &shown);
      rest.remove_prefix(1);
    } else {
      shown += rest.substr(0, length);
      rest.remove_prefix(length);
    }
  }
  shown += "'";
  if (name.size() > kShownBytes) {
    shown += "... (" + std::to_string(name.size()) + " bytes)";
  }
  return shown;
}

}  // namespace strata
