// SPDX-License-Identifier: Apache-2.0
#include "client/random_name.h"

#include <sys/random.h>

#include <array>
#include <cerrno>
#include <cstdint>

namespace strata {

StatusOr<std::string> RandomName() {
  constexpr uint8_t kFair = 252;  // the greatest multiple of 36 in a byte
  std::string name;
  while (name.size() < kRandomNameLength) {
    std::array<uint8_t, 64> random{};
    // Short reads do not happen up to 256 bytes (getrandom(2)).
    if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
      return ErrnoStatus(errno, "get random bytes");
    }
    for (const uint8_t byte : random) {
      if (byte < kFair && name.size() < kRandomNameLength) {
        name += kRandomNameLetters[byte % kRandomNameLetters.size()];
      }
    }
  }
  return name;
}

}  // namespace strata
