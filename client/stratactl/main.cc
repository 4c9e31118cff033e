// SPDX-License-Identifier: Apache-2.0
#include <iostream>

#include "client/stratactl/stratactl.h"

int main(int argc, char** argv) {
  return strata::Stratactl({argv + 1, argv + argc}, std::cout, std::cerr, strata::Terminal::Real());
}
