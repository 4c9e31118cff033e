// SPDX-License-Identifier: Apache-2.0
//
// STRATA_CHECK ends the process on a bug of ours. Never for input, network, disk or kernel answers.
#pragma once

namespace strata {

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace strata

#define STRATA_CHECK(condition)                              \
  do {                                                       \
    if (!(condition)) [[unlikely]] {                         \
      ::strata::CheckFailed(__FILE__, __LINE__, #condition); \
    }                                                        \
  } while (false)
