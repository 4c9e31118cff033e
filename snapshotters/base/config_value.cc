// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/config_value.h"

#include <absl/strings/str_cat.h>

#include <utility>

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

namespace strata {
namespace {

ConfigValue Convert(std::string path, uint32_t line, const toml::node& node) {
  ConfigValue::Content content;
  if (const toml::table* table = node.as_table(); table != nullptr) {
    ConfigValue::Table entries;
    for (const auto& [key, value] : *table) {
      std::string name(key.str());
      std::string below = path.empty() ? name : absl::StrCat(path, ".", name);
      entries.emplace_back(std::move(name),
                           Convert(std::move(below), key.source().begin.line, value));
    }
    content = std::move(entries);
  } else if (const toml::array* array = node.as_array(); array != nullptr) {
    ConfigValue::List items;
    for (const toml::node& item : *array) {
      items.push_back(Convert(path, item.source().begin.line, item));
    }
    content = std::move(items);
  } else if (const auto text = node.value_exact<std::string>(); text.has_value()) {
    content = *text;
  } else if (const auto boolean = node.value_exact<bool>(); boolean.has_value()) {
    content = *boolean;
  } else if (const auto number = node.value_exact<int64_t>(); number.has_value()) {
    content = *number;
  }
  return {std::move(path), line, std::move(content)};
}

std::string At(uint32_t line) {
  return "line " + std::to_string(line) + ": ";
}

}  // namespace

StatusOr<ConfigValue> ConfigValue::Parse(const std::string& toml) {
  const toml::parse_result parsed = toml::parse(toml);
  if (!parsed) {
    return MakeStatus(StatusCode::kInvalidArgument, At(parsed.error().source().begin.line) +
                                                        std::string(parsed.error().description()));
  }
  return Convert("", 1, parsed.table());
}

Status ConfigValue::Bad(std::string_view message) const {
  return MakeStatus(StatusCode::kInvalidArgument,
                    At(line_) + "key '" + path_ + "': " + std::string(message));
}

Status ConfigValue::Unknown(std::string_view expected) const {
  return MakeStatus(StatusCode::kInvalidArgument,
                    At(line_) + "unknown key '" + path_ + "', expected " + std::string(expected));
}

StatusOr<std::string> ConfigValue::Text() const {
  if (const auto* text = std::get_if<std::string>(&content_); text != nullptr) {
    return *text;
  }
  return Bad("expected a string");
}

StatusOr<bool> ConfigValue::Boolean() const {
  if (const auto* boolean = std::get_if<bool>(&content_); boolean != nullptr) {
    return *boolean;
  }
  return Bad("expected true or false");
}

StatusOr<int64_t> ConfigValue::Number(int64_t least, int64_t most) const {
  const auto* number = std::get_if<int64_t>(&content_);
  if (number != nullptr && *number >= least && *number <= most) {
    return *number;
  }
  std::string expected = "expected a whole number from " + std::to_string(least);
  if (most != std::numeric_limits<int64_t>::max()) {
    expected += " to " + std::to_string(most);
  }
  return Bad(expected);
}

StatusOr<std::vector<std::string>> ConfigValue::Texts() const {
  if (const auto* text = std::get_if<std::string>(&content_); text != nullptr) {
    return std::vector<std::string>{*text};
  }
  const List* items = list();
  if (items == nullptr) {
    return Bad("expected a string or a list of strings");
  }
  std::vector<std::string> texts;
  for (const ConfigValue& item : *items) {
    const auto* text = std::get_if<std::string>(&item.content_);
    if (text == nullptr) {
      return Bad("expected a string or a list of strings");
    }
    texts.push_back(*text);
  }
  return texts;
}

}  // namespace strata
