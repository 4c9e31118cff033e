// SPDX-License-Identifier: Apache-2.0
//
// Starts the second holder of descriptors (services/keeper/PROTOCOL.md), a process that outlives
// this one. Safe from any thread.
#pragma once

#include <chrono>
#include <string>

#include "snapshotters/base/status.h"

namespace strata {

// Its socket, in the root.
inline constexpr char kHolderSocket[] = "holder.sock";

// strata-keeper beside this program, else in $PATH; "": there is none.
std::string FindKeeper();

// Runs `program --hold <root>/holder.sock` as a child of nobody in a session of its own, without
// any descriptor, signal mask or variable of this process, and returns when it answers. Unavailable
// when it did not by then, NotFound when there is no such program.
Status StartHolder(const std::string& program, const std::string& root,
                   std::chrono::steady_clock::time_point deadline);

}  // namespace strata
