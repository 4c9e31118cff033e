// SPDX-License-Identifier: Apache-2.0
//
// Targets of the suite that are a server process behind the proxy: our own daemons, and with
// STRATA_SUITE_SERVER any other one with the same command line. For tests only.
#pragma once

#include <string>
#include <vector>

#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {

// `binary` --root R --socket S `arguments`.... Without the binary the target is not available.
SuiteTarget DaemonTarget(std::string name, std::string kind, const std::string& binary,
                         const std::vector<std::string>& arguments);

// services/strata-KIND of the build tree that STRATA_BUILD_ROOT names.
SuiteTarget StrataDaemonTarget(const std::string& kind);

// The server that STRATA_SUITE_SERVER names, of the kind in STRATA_SUITE_KIND, if any: for a look
// at how another implementation does.
std::vector<SuiteTarget> OtherServerTargets(const std::string& kind);

}  // namespace strata::testing
