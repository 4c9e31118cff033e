// SPDX-License-Identifier: Apache-2.0
#include "services/config_print.h"

#include <absl/strings/str_cat.h>

#include <string_view>
#include <utility>

namespace strata {
namespace {

// "blob" of "blob.max_retries"; "" of a key outside of tables.
std::string_view TableOf(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : path.substr(0, dot);
}

}  // namespace

std::string PrintConfig(const std::vector<ConfigKey>& keys, const ConfigOrigins& origins) {
  std::map<std::string_view, std::string> tables;  // "" comes first
  for (const ConfigKey& key : keys) {
    const auto origin = origins.find(key.path);
    const std::string from = "  # " + (origin == origins.end() ? "default" : origin->second) + "\n";
    const std::string_view table = TableOf(key.path);
    const std::string name = key.path.substr(table.empty() ? 0 : table.size() + 1);
    if (!key.same_as.empty()) {
      continue;
    }
    if (key.show) {
      tables[table] += absl::StrCat(name, " = ", key.show(), from);
    } else if (origin != origins.end()) {
      tables[table] += absl::StrCat("# ", name, " has no effect", from);
    }
  }
  std::string all;
  for (const auto& [table, lines] : tables) {
    if (!table.empty()) {
      all += "\n[" + std::string(table) + "]\n";
    }
    all += lines;
  }
  return all;
}

}  // namespace strata
