// SPDX-License-Identifier: Apache-2.0
//
// ConfigValue: a value of a TOML file that knows where it stands, so that whoever refuses it can
// say so. Plain data and pure functions; safe from any thread.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

class ConfigValue {
 public:
  using List = std::vector<ConfigValue>;
  using Table = std::vector<std::pair<std::string, ConfigValue>>;
  // monostate: a number with a fraction, a date, or what else no setting of ours has.
  using Content = std::variant<std::monostate, bool, int64_t, std::string, List, Table>;

  // `path`: "blob.max_retries"; empty for the whole file.
  ConfigValue(std::string path, uint32_t line, Content content)
      : path_(std::move(path)), line_(line), content_(std::move(content)) {}

  // The whole of a file; InvalidArgument as the others: "line 3: ...".
  static StatusOr<ConfigValue> Parse(const std::string& toml);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] uint32_t line() const { return line_; }
  // Null when it is none.
  [[nodiscard]] const Table* table() const { return std::get_if<Table>(&content_); }
  [[nodiscard]] const List* list() const { return std::get_if<List>(&content_); }

  // InvalidArgument "line 3: key 'a.b': expected ..." when it is of another type.
  [[nodiscard]] StatusOr<std::string> Text() const;
  [[nodiscard]] StatusOr<bool> Boolean() const;
  [[nodiscard]] StatusOr<int64_t> Number(int64_t least,
                                         int64_t most = std::numeric_limits<int64_t>::max()) const;
  // A string, or a list of strings.
  [[nodiscard]] StatusOr<std::vector<std::string>> Texts() const;

  // InvalidArgument "line 3: key 'a.b': MESSAGE".
  [[nodiscard]] Status Bad(std::string_view message) const;
  // InvalidArgument for a key that is not known; `expected`: those that are.
  [[nodiscard]] Status Unknown(std::string_view expected) const;

 private:
  std::string path_;
  uint32_t line_;
  Content content_;
};

}  // namespace strata
