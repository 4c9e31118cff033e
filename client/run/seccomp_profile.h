// SPDX-License-Identifier: Apache-2.0
//
// The system calls that a container may use: the default profile of Docker 25 as a table of ours,
// in the form of the OCI runtime specification. Pure; safe from any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

namespace strata {

// In Go's words, "amd64", as images and the profile's conditions have them.
std::string_view HostArchitecture();

// `linux.seccomp` for a process with these capabilities ("CAP_CHOWN") in its bounding set: what is
// not allowed fails with EPERM, and clone3 with ENOSYS, so that C libraries fall back to clone.
// Needs Linux 4.8: earlier, a tracer could get around the filter.
nlohmann::json SeccompProfile(std::string_view architecture,
                              std::span<const std::string> capabilities);

}  // namespace strata
