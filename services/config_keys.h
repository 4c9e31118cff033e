// SPDX-License-Identifier: Apache-2.0
//
// Settings: a key of the configuration file or a flag of the command line, and the field that it
// fills. Each key can also show what the field holds, as TOML. What is built by these functions
// refers to the fields, which must outlive it; used by one thread.
#pragma once

#include <chrono>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/config_value.h"
#include "snapshotters/base/status.h"

namespace strata {

// A key of the file, with the names of the tables that it is in: "blob.max_retries".
struct ConfigKey {
  std::string path;
  // Takes the value, whatever its type. Its errors come from the value (ConfigValue::Bad).
  std::function<Status(const ConfigValue&)> set;
  // What is in effect, as a TOML value. Empty: the key has no effect.
  std::function<std::string()> show = {};
  // The path of the key that is another name for the same value, and is shown instead; "": none.
  std::string same_as = {};
};

struct ConfigFlag {
  std::string name;  // "--presenter"
  std::string type;  // as --help shows it: "NAME"; "": it is given without a value
  std::string help;
  std::string key;  // the path of the key that it goes before
  // Without a value: is given "".
  std::function<Status(const std::string&)> set;
};

// What one kind can be told besides.
struct KindSettings {
  std::vector<ConfigKey> keys;
  std::vector<ConfigFlag> flags;

  void Append(KindSettings more);
};

// As TOML.
std::string TomlText(std::string_view text);
std::string TomlTexts(const std::vector<std::string>& texts);
inline std::string TomlBoolean(bool value) {
  return value ? "true" : "false";
}

ConfigKey TextKey(std::string path, std::string* field);

// `inverted`: the field says the opposite of the key.
ConfigKey BooleanKey(std::string path, bool* field, bool inverted = false);

template <typename T>
ConfigKey NumberKey(const std::string& path, T* field, int64_t least,
                    int64_t most = std::numeric_limits<int64_t>::max()) {
  return {.path = path,
          .set =
              [field, least, most](const ConfigValue& value) {
                STRATA_ASSIGN_OR_RETURN(const int64_t number, value.Number(least, most));
                *field = static_cast<T>(number);
                return OkStatus();
              },
          .show = [field] { return std::to_string(*field); }};
}

// `Unit`: what the file counts in.
template <typename Unit>
std::function<std::string()> ShowDuration(const std::chrono::milliseconds* field) {
  return [field] { return std::to_string(std::chrono::duration_cast<Unit>(*field).count()); };
}

template <typename Unit>
ConfigKey DurationKey(const std::string& path, std::chrono::milliseconds* field, int64_t least,
                      int64_t most) {
  return {.path = path,
          .set =
              [field, least, most](const ConfigValue& value) {
                STRATA_ASSIGN_OR_RETURN(const int64_t number, value.Number(least, most));
                *field = Unit(number);
                return OkStatus();
              },
          .show = ShowDuration<Unit>(field)};
}

template <typename T>
using Choices = std::vector<std::pair<std::string_view, T>>;

// InvalidArgument lists what was expected.
template <typename T>
Status Choose(const Choices<T>& choices, std::string_view name, T* field) {
  std::string expected;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (choices[i].first == name) {
      *field = choices[i].second;
      return OkStatus();
    }
    expected += i == 0 ? "" : (i + 1 == choices.size() ? " or " : ", ");
    expected += choices[i].first;
  }
  return MakeStatus(StatusCode::kInvalidArgument,
                    "'" + std::string(name) + "', expected " + expected);
}

// One of a few words.
template <typename T>
ConfigKey ChoiceKey(const std::string& path, T* field, const Choices<T>& choices) {
  return {.path = path,
          .set =
              [field, choices](const ConfigValue& value) {
                STRATA_ASSIGN_OR_RETURN(const std::string name, value.Text());
                const Status status = Choose(choices, name, field);
                return status.ok() ? status : value.Bad(StatusMessage(status));
              },
          .show =
              [field, choices] {
                for (const auto& [name, meant] : choices) {
                  if (meant == *field) {
                    return TomlText(name);
                  }
                }
                return std::string();
              }};
}

template <typename T>
std::function<Status(const std::string&)> SetChoice(T* field, const Choices<T>& choices) {
  return [field, choices](const std::string& name) { return Choose(choices, name, field); };
}

std::function<Status(const std::string&)> SetText(std::string* field);
// Of a flag without a value.
std::function<Status(const std::string&)> SetTrue(bool* field);

}  // namespace strata
