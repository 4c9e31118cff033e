// SPDX-License-Identifier: Apache-2.0
//
// Numbers and texts as FORMAT.md writes them: fixed ones little-endian, varints of 7 bits a byte,
// the lowest first. Stateless, or one thread's. Internal to core.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace strata {

inline void PutVarint(uint64_t value, std::string* out) {
  while (value >= 0x80) {
    *out += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  *out += static_cast<char>(value);
}

template <typename T>
void PutFixed(T value, std::string* out) {
  const auto bits = static_cast<std::make_unsigned_t<T>>(value);
  for (size_t i = 0; i < sizeof(T); ++i) {
    *out += static_cast<char>(bits >> (8 * i));
  }
}

inline void PutText(std::string_view text, std::string* out) {
  PutVarint(text.size(), out);
  out->append(text);
}

// Reads forward; the first failure sticks and everything after it reads as zero or empty.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool at_end() const { return rest_.empty(); }

  uint64_t Varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) {
        return Fail();
      }
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      if (shift == 63 && byte > 1) {
        return Fail();
      }
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) {
        return value;
      }
    }
    return Fail();
  }

  template <typename T>
  T Fixed() {
    if (rest_.size() < sizeof(T)) {
      return static_cast<T>(Fail());
    }
    std::make_unsigned_t<T> value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) {
      const auto byte = static_cast<unsigned char>(rest_[i]);
      value = static_cast<std::make_unsigned_t<T>>(
          value | (static_cast<std::make_unsigned_t<T>>(byte) << (8 * i)));
    }
    rest_.remove_prefix(sizeof(T));
    return static_cast<T>(value);
  }

  std::string_view Text() {
    const uint64_t length = Varint();
    if (length > rest_.size()) {
      Fail();
      return {};
    }
    const std::string_view text = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return text;
  }

  // A number of things that take at least one byte each.
  uint64_t Count() {
    const uint64_t count = Varint();
    return count > rest_.size() ? Fail() : count;
  }

 private:
  uint64_t Fail() {
    ok_ = false;
    rest_ = {};
    return 0;
  }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace strata
