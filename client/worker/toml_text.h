// SPDX-License-Identifier: Apache-2.0
//
// Values as TOML writes them. Pure functions; safe from any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/config_value.h"
#include "snapshotters/base/status.h"

namespace strata {

// "text", with what has to be escaped.
std::string TomlString(std::string_view text);
std::string TomlList(const std::vector<std::string>& texts);
// A bare key where that will do, else a quoted one.
std::string TomlKey(std::string_view name);

// Every value in `table` by its dotted key. InvalidArgument: a number with a fraction, a date.
Status FlattenToml(const ConfigValue& table, const std::string& prefix,
                   std::map<std::string, std::string>* flat);

}  // namespace strata
