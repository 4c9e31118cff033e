// SPDX-License-Identifier: Apache-2.0
//
// stratactl as a function: the operator's tool.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "client/stratactl/output.h"

namespace strata {

// `arguments` without the program's name. Returns the exit code: 0, 1 for a failure, 2 for
// arguments that it does not take; errors go to `err`.
int Stratactl(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err,
              const Terminal& terminal = {});

}  // namespace strata
