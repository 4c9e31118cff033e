// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace strata {

void CheckFailed(const char* file, int line, const char* condition) {
  (void)std::fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, condition);
  std::abort();
}

}  // namespace strata
