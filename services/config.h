// SPDX-License-Identifier: Apache-2.0
//
// What a daemon is told: built-in values, then its TOML file, then its flags. Plain data and pure
// functions over it; safe from any thread.
#pragma once

#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "services/config_keys.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/status.h"
#include "snapshotters/os/tree_sync.h"

namespace strata {

// A client with a socket and a key space of its own.
struct TenantConfig {
  std::string name;
  std::string socket;  // "": the service manager passes it

  bool operator==(const TenantConfig&) const = default;
};

struct DaemonConfig {
  std::string root;
  std::string socket;
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
  bool allow_volatile_root = false;
  std::string anchor_dir = "/var/lib/strata/anchors";
  SyncAtCommit sync_at_commit = SyncAtCommit::kNone;
  bool synchronous_removal = false;
  std::vector<TenantConfig> tenants;  // besides the default one, whose socket is `socket`
  bool check = false;  // tell whether this program could take over the root, instead of serving
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
