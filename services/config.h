// SPDX-License-Identifier: Apache-2.0
//
// What a daemon is told: built-in values, then its TOML file, then its flags. Plain data and pure
// functions over it; safe from any thread.
#pragma once

#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "services/config_value.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/status.h"

namespace strata {

struct DaemonConfig {
  std::string root;
  std::string socket;
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
  bool allow_volatile_root = false;
  std::string anchor_dir = "/var/lib/strata/anchors";
  bool check = false;  // tell whether this program could take over the root, instead of serving
};

// A key of the file, with the names of the tables that it is in: "blob.max_retries".
struct ConfigKey {
  std::string path;
  // Takes the value, whatever its type. Its errors come from the value (ConfigValue::Bad).
  std::function<Status(const ConfigValue&)> set;
};

struct ConfigFlag {
  std::string name;  // "--presenter"
  std::string type;  // as --help shows it: "NAME"
  std::string help;
  std::function<Status(const std::string&)> set;
};

// What one kind can be told besides.
struct KindSettings {
  std::vector<ConfigKey> keys;
  std::vector<ConfigFlag> flags;
};

// What the command line asks for besides serving: print `text` and exit with success.
struct PrintAndExit {
  std::string text;
};

struct ConfigSources {
  std::string kind;  // "overlayfs": names the defaults and the program
  std::string version;
  // Reads a file; NotFound when it is not there. Injected, so that tests need no files.
  std::function<StatusOr<std::string>(const std::string& path)> read_file;
  KindSettings settings;
};

// The configuration from `arguments` (without the program's name). A file given by --config must
// exist; without the flag /etc/strata/<kind>.toml is read when it is there. What the kind can be
// told is given to it, the file's first. InvalidArgument names the flag, or file, line and key, and
// what was expected.
StatusOr<std::variant<DaemonConfig, PrintAndExit>> ReadConfig(
    const ConfigSources& sources, const std::vector<std::string>& arguments);

// As the daemon does it: from disk, at most 1 MiB.
StatusOr<std::string> ReadConfigFile(const std::string& path);

}  // namespace strata
