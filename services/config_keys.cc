// SPDX-License-Identifier: Apache-2.0
#include "services/config_keys.h"

#include <cstdio>
#include <iterator>

namespace strata {

void KindSettings::Append(KindSettings more) {
  keys.insert(keys.end(), std::make_move_iterator(more.keys.begin()),
              std::make_move_iterator(more.keys.end()));
  flags.insert(flags.end(), std::make_move_iterator(more.flags.begin()),
               std::make_move_iterator(more.flags.end()));
}

std::string TomlText(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      char escaped[8];
      (void)std::snprintf(escaped, sizeof(escaped), "\\u%04x", byte);  // has room
      quoted += escaped;
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

std::string TomlTexts(const std::vector<std::string>& texts) {
  std::string list = "[";
  for (const std::string& text : texts) {
    list += (list.size() == 1 ? "" : ", ") + TomlText(text);
  }
  return list + "]";
}

ConfigKey TextKey(std::string path, std::string* field) {
  return {.path = std::move(path),
          .set =
              [field](const ConfigValue& value) {
                STRATA_ASSIGN_OR_RETURN(*field, value.Text());
                return OkStatus();
              },
          .show = [field] { return TomlText(*field); }};
}

ConfigKey BooleanKey(std::string path, bool* field, bool inverted) {
  return {.path = std::move(path),
          .set =
              [field, inverted](const ConfigValue& value) {
                STRATA_ASSIGN_OR_RETURN(const bool given, value.Boolean());
                *field = given != inverted;
                return OkStatus();
              },
          .show = [field, inverted] { return TomlBoolean(*field != inverted); }};
}

std::function<Status(const std::string&)> SetText(std::string* field) {
  return [field](const std::string& text) {
    *field = text;
    return OkStatus();
  };
}

std::function<Status(const std::string&)> SetTrue(bool* field) {
  return [field](const std::string& /*nothing*/) {
    *field = true;
    return OkStatus();
  };
}

}  // namespace strata
