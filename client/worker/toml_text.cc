// SPDX-License-Identifier: Apache-2.0
#include "client/worker/toml_text.h"

#include <cstdint>
#include <limits>

namespace strata {
namespace {

std::string Joined(const std::vector<std::string>& parts) {
  std::string joined;
  for (const std::string& part : parts) {
    joined += (joined.empty() ? "" : ", ") + part;
  }
  return joined;
}

// NOLINTNEXTLINE(misc-no-recursion): as deep as the file's tables, which its parser bounds.
StatusOr<std::string> Literal(const ConfigValue& value) {
  if (value.table() != nullptr) {
    std::vector<std::string> entries;
    for (const auto& [name, entry] : *value.table()) {
      STRATA_ASSIGN_OR_RETURN(const std::string literal, Literal(entry));
      entries.push_back(TomlKey(name) + " = " + literal);
    }
    return "{ " + Joined(entries) + " }";
  }
  if (value.list() != nullptr) {
    std::vector<std::string> items;
    for (const ConfigValue& item : *value.list()) {
      STRATA_ASSIGN_OR_RETURN(std::string literal, Literal(item));
      items.push_back(std::move(literal));
    }
    return "[" + Joined(items) + "]";
  }
  if (const auto text = value.Text(); text.ok()) {
    return TomlString(*text);
  }
  if (const auto boolean = value.Boolean(); boolean.ok()) {
    return std::string(*boolean ? "true" : "false");
  }
  if (const auto number = value.Number(std::numeric_limits<int64_t>::min()); number.ok()) {
    return std::to_string(*number);
  }
  return value.Bad("expected a string, a whole number, true or false, a list or a table");
}

}  // namespace

std::string TomlString(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string out = "\"";
  for (const char character : text) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte < 0x20 || byte == 0x7f) {
      out += std::string("\\u00") + kDigits[byte >> 4] + kDigits[byte & 15];
      continue;
    }
    if (character == '"' || character == '\\') {
      out += '\\';
    }
    out += character;
  }
  return out + '"';
}

std::string TomlList(const std::vector<std::string>& texts) {
  std::vector<std::string> items;
  items.reserve(texts.size());
  for (const std::string& text : texts) {
    items.push_back(TomlString(text));
  }
  return "[" + Joined(items) + "]";
}

std::string TomlKey(std::string_view name) {
  constexpr std::string_view kBare =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  const bool bare = !name.empty() && name.find_first_not_of(kBare) == std::string_view::npos;
  return bare ? std::string(name) : TomlString(name);
}

// NOLINTNEXTLINE(misc-no-recursion): see Literal.
Status FlattenToml(const ConfigValue& table, const std::string& prefix,
                   std::map<std::string, std::string>* flat) {
  if (table.table() == nullptr) {
    return table.Bad("expected a table");
  }
  for (const auto& [name, value] : *table.table()) {
    const std::string key = prefix.empty() ? TomlKey(name) : prefix + "." + TomlKey(name);
    if (value.table() != nullptr) {
      STRATA_RETURN_IF_ERROR(FlattenToml(value, key, flat));
      continue;
    }
    STRATA_ASSIGN_OR_RETURN((*flat)[key], Literal(value));
  }
  return OkStatus();
}

}  // namespace strata
