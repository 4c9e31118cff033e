// SPDX-License-Identifier: Apache-2.0
//
// What --print-config prints: every key with the value that is in effect, and where it came from,
// as a file that has the same effect. Pure, safe from any thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "services/config_keys.h"

namespace strata {

// By the path of the key: "/etc/strata/overlayfs.toml:3", "--root". What is not in it is a default.
using ConfigOrigins = std::map<std::string, std::string>;

// Keys outside of tables first. A key without effect is a comment, and only when it was given.
std::string PrintConfig(const std::vector<ConfigKey>& keys, const ConfigOrigins& origins);

}  // namespace strata
